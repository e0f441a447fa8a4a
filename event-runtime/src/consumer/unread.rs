//! For how long records have waited that are not in hand: not read yet, or not given by a client that reads nothing.
//!
//! When such a record was written, only Kafka can say. Until it has, the record counts from when it was noticed, which is
//! too late by what it had waited before. Pure: what is to be looked up is asked of it, and the answers are told to it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::scheduler::Partition;

/// Topic and number.
type Place = (String, i32);

/// The first record of each partition that waits and is not in hand.
#[derive(Default)]
pub(super) struct Unread(HashMap<Partition, Wait>);

struct Wait {
    offset: i64,
    /// Where the partition ended when this was last noted.
    end: i64,
    noticed: Timestamp,
    /// Whether it was there before: what is read a moment later is not worth a question.
    lasts: bool,
    answer: Option<Answer>,
}

#[derive(Clone, Copy)]
enum Answer {
    Written(Timestamp),
    /// Only offsets without a record, such as a transaction's end mark.
    Nothing,
}

impl Unread {
    /// Notes that `partition` has something at `offset` and ends at `end`: since when it waits. None where there is no record.
    pub(super) fn since(&mut self, partition: &Partition, offset: i64, end: i64, now: Timestamp) -> Option<Timestamp> {
        let before = self.0.remove(partition).filter(|wait| wait.offset == offset);
        let wait = match before {
            // What was written since then is a record, or one more end mark.
            Some(Wait { answer: Some(Answer::Nothing), end: before, .. }) if before < end => {
                Wait { offset, end, noticed: now, lasts: true, answer: None }
            }
            Some(wait) => Wait { end, lasts: true, ..wait },
            None => Wait { offset, end, noticed: now, lasts: false, answer: None },
        };
        let since = match wait.answer {
            Some(Answer::Written(written)) => Some(written),
            Some(Answer::Nothing) => None,
            None => Some(wait.noticed),
        };
        self.0.insert(partition.clone(), wait);
        since
    }

    /// Nothing of `partition` waits without being in hand.
    pub(super) fn forget(&mut self, partition: &Partition) {
        self.0.remove(partition);
    }

    /// What is to be looked up: where from, and where the partition ends.
    pub(super) fn wanted(&self) -> BTreeMap<Place, (i64, i64)> {
        let open = self.0.iter().filter(|(_, wait)| wait.lasts && wait.answer.is_none());
        open.map(|(partition, wait)| (place(partition), (wait.offset, wait.end))).collect()
    }

    /// Notes when the first records from the `asked` places on were written; what is missing is still not known.
    pub(super) fn answer(&mut self, asked: &BTreeMap<Place, (i64, i64)>, written: &BTreeMap<Place, Option<Timestamp>>) {
        for (partition, wait) in &mut self.0 {
            let place = place(partition);
            let Some((&(offset, end), written)) = asked.get(&place).zip(written.get(&place)) else { continue };
            wait.answer = match written {
                Some(written) if offset == wait.offset => Some(Answer::Written(*written)),
                // It was said of what was there at that time.
                None if (offset, end) == (wait.offset, wait.end) => Some(Answer::Nothing),
                _ => wait.answer,
            };
        }
    }
}

fn place(partition: &Partition) -> Place {
    (partition.topic.to_string(), partition.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn orders() -> Partition {
        Partition { topic: "orders".into(), number: 3 }
    }

    /// Looks up what is wanted, and answers all of it.
    fn answer(unread: &mut Unread, written: Option<Timestamp>) {
        let asked = unread.wanted();
        let written = asked.keys().map(|place| (place.clone(), written)).collect();
        unread.answer(&asked, &written);
    }

    #[test]
    fn what_is_read_a_moment_later_is_not_asked_for() {
        let mut unread = Unread::default();
        for offset in 5..9 {
            assert_eq!(unread.since(&orders(), offset, 9, at(100 + offset)), Some(at(100 + offset)));
            assert!(unread.wanted().is_empty());
        }
        unread.forget(&orders());
        assert_eq!(unread.since(&orders(), 8, 9, at(200)), Some(at(200)), "it was in hand meanwhile");
        assert!(unread.wanted().is_empty());
    }

    #[test]
    fn what_waits_counts_from_when_it_was_noticed_until_it_is_known_when_it_was_written() {
        let mut unread = Unread::default();
        unread.since(&orders(), 5, 7, at(100));
        assert_eq!(unread.since(&orders(), 5, 8, at(101)), Some(at(100)), "nobody has answered");
        assert_eq!(unread.wanted(), BTreeMap::from([(("orders".to_owned(), 3), (5, 8))]));
        answer(&mut unread, Some(at(40)));
        assert_eq!(unread.since(&orders(), 5, 9, at(102)), Some(at(40)));
        assert!(unread.wanted().is_empty(), "once is enough");
        assert_eq!(unread.since(&orders(), 6, 9, at(103)), Some(at(103)), "another record");
    }

    #[test]
    fn an_answer_for_what_was_read_meanwhile_counts_for_nothing() {
        let mut unread = Unread::default();
        unread.since(&orders(), 5, 7, at(100));
        unread.since(&orders(), 5, 7, at(101));
        let asked = unread.wanted();
        unread.since(&orders(), 6, 7, at(102));
        unread.answer(&asked, &BTreeMap::from([(("orders".to_owned(), 3), Some(at(40)))]));
        assert_eq!(unread.since(&orders(), 6, 7, at(103)), Some(at(102)));
    }

    #[test]
    fn where_there_is_no_record_nothing_waits_until_the_partition_grows() {
        let mut unread = Unread::default();
        unread.since(&orders(), 5, 6, at(100));
        unread.since(&orders(), 5, 6, at(101));
        answer(&mut unread, None);
        assert_eq!(unread.since(&orders(), 5, 6, at(102)), None);
        assert!(unread.wanted().is_empty());
        assert_eq!(unread.since(&orders(), 5, 7, at(103)), Some(at(103)));
        let asked = unread.wanted();
        unread.since(&orders(), 5, 8, at(104));
        unread.answer(&asked, &BTreeMap::from([(("orders".to_owned(), 3), None)]));
        assert_eq!(unread.since(&orders(), 5, 8, at(105)), Some(at(103)), "said of a shorter partition");
    }
}
