//! What has been replayed, as the replay's group remembers it.
//!
//! Its offset is the first letter of the partition that waits, so a selective replay loses nothing of what it did not
//! select. What has been replayed above that letter is noted in the offset's metadata: `replayed 2,5-9`, counted from the
//! offset. Brokers take 4096 bytes of that; what does not fit is forgotten, and may be replayed twice.

use std::collections::{BTreeMap, BTreeSet};

use event_runtime::{Origin, reader::Committed};

use super::runs::Runs;

const NOTE: &str = "replayed ";

/// Bytes of metadata. Brokers refuse more than 4096 unless told otherwise.
const LONGEST_NOTE: usize = 4000;

/// What is done in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    position: Option<i64>,
    /// Offsets above the position.
    above: Runs,
}

/// How far a run is.
#[derive(Debug, Default)]
pub struct Progress {
    partitions: BTreeMap<(String, i32), Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    done: Done,
    /// The letters at or above the position that nothing has been done with.
    open: BTreeSet<i64>,
    /// What the group has committed.
    said: Option<Committed>,
}

impl Done {
    /// As the group has committed it. A note that is not ours says nothing.
    pub fn read(committed: &Committed) -> Done {
        let position = committed.offset;
        let mut above = Runs::default();
        for run in committed.metadata.strip_prefix(NOTE).unwrap_or_default().split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                above.insert(position.saturating_add(first), position.saturating_add(last));
            }
        }
        Done { position: Some(position), above }
    }

    /// Below this offset, everything is done; none when the group has never said anything.
    pub fn position(&self) -> Option<i64> {
        self.position
    }

    pub fn contains(&self, offset: i64) -> bool {
        self.position.is_some_and(|position| offset < position) || self.above.contains(offset)
    }

    fn to_committed(&self) -> Option<Committed> {
        let position = self.position?;
        let mut note = String::new();
        for (first, last) in self.above.iter() {
            let (first, last) = (first - position, last - position);
            let run = if first == last { first.to_string() } else { format!("{first}-{last}") };
            if NOTE.len() + note.len() + run.len() + 1 > LONGEST_NOTE {
                break;
            }
            note.push_str(if note.is_empty() { NOTE } else { "," });
            note.push_str(&run);
        }
        Some(Committed { offset: position, metadata: note })
    }
}

impl Progress {
    pub fn new(done: &BTreeMap<(String, i32), Done>) -> Progress {
        let partition =
            |done: &Done| Partition { done: done.clone(), said: done.to_committed(), ..Partition::default() };
        Progress { partitions: done.iter().map(|(name, done)| (name.clone(), partition(done))).collect() }
    }

    /// There is a letter at `place`.
    pub fn expect(&mut self, place: &Origin, settled: bool) {
        let partition = self.of(place);
        if partition.done.position.is_some_and(|position| place.offset < position) {
            return;
        }
        match settled {
            true => partition.done.above.insert(place.offset, place.offset),
            false => drop(partition.open.insert(place.offset)),
        }
    }

    /// The letter at `place` is done with.
    pub fn settle(&mut self, place: &Origin) {
        let partition = self.of(place);
        if partition.open.remove(&place.offset) {
            partition.done.above.insert(place.offset, place.offset);
        }
    }

    /// What the group is to commit, where that is something new.
    pub fn moved(&mut self) -> BTreeMap<(String, i32), Committed> {
        let mut moved = BTreeMap::new();
        for (name, partition) in &mut self.partitions {
            partition.advance();
            let now = partition.done.to_committed();
            if now != partition.said {
                partition.said.clone_from(&now);
                moved.extend(now.map(|committed| (name.clone(), committed)));
            }
        }
        moved
    }

    fn of(&mut self, place: &Origin) -> &mut Partition {
        self.partitions.entry((place.topic.to_string(), place.partition)).or_default()
    }
}

impl Partition {
    /// Moves the position to the first letter that waits, behind all letters where none does.
    fn advance(&mut self) {
        let end = self.done.above.last().map(|last| last.saturating_add(1));
        let Some(position) = self.open.first().copied().or(end) else { return };
        // Nothing has been done in a partition whose first letter waits.
        if self.done.position.is_some() || end.is_some() {
            self.done.position = self.done.position.max(Some(position));
        }
        if let Some(position) = self.done.position {
            self.done.above.remove_below(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz::fuzz;

    use super::*;

    #[test]
    fn fuzzed_notes_say_the_same_once_they_are_written_again() {
        let corpus = [
            "",
            "replayed 2,5-9",
            "replayed 1-3,3-7,9,8",
            "replayed x,-,9-2",
            "somebody else's",
            // Each of two thousand million offsets was remembered on its own, and there are none behind the last.
            "replayed 0-2147483647",
            "replayed 9223372036854775807",
        ];
        fuzz(&corpus.map(str::to_owned), &["replayed ", "-", ",", "1-2", "0-9223372036854775807"], |note| {
            for position in [0, 100, i64::MAX - 3, i64::MAX] {
                let done = Done::read(&committed(position, note));
                let written = done.to_committed().unwrap();
                assert!(written.offset == position && written.metadata.len() <= LONGEST_NOTE, "{written:?}");
                if note.len() <= LONGEST_NOTE {
                    assert_eq!(Done::read(&written), done, "{written:?}");
                }
                assert!(moved(&mut progress(done)).is_none_or(|moved| moved.offset >= position), "{note}");
            }
            Done::read(&committed(0, note)).above != Runs::default()
        });
    }

    fn at(offset: i64) -> Origin {
        Origin { topic: "t".into(), partition: 0, offset }
    }

    fn committed(offset: i64, metadata: &str) -> Committed {
        Committed { offset, metadata: metadata.to_owned() }
    }

    fn progress(done: Done) -> Progress {
        Progress::new(&BTreeMap::from([(("t".to_owned(), 0), done)]))
    }

    fn moved(progress: &mut Progress) -> Option<Committed> {
        progress.moved().remove(&("t".to_owned(), 0))
    }

    #[test]
    fn the_position_stops_at_the_first_letter_that_waits_and_what_is_done_above_is_noted() {
        let mut progress = progress(Done::default());
        for (offset, settled) in [(3, true), (4, false), (6, false), (7, false), (9, false)] {
            progress.expect(&at(offset), settled);
        }
        assert_eq!(moved(&mut progress), Some(committed(4, "")), "what is settled from the beginning is passed");
        progress.settle(&at(6));
        progress.settle(&at(9));
        assert_eq!(moved(&mut progress), Some(committed(4, "replayed 2,5")));
        progress.settle(&at(7));
        assert_eq!(moved(&mut progress), Some(committed(4, "replayed 2-3,5")));
        assert_eq!(moved(&mut progress), None, "it is said once");
        progress.settle(&at(4));
        assert_eq!(moved(&mut progress), Some(committed(10, "")));
    }

    #[test]
    fn the_position_never_moves_back() {
        let mut progress = progress(Done::read(&committed(5, "")));
        progress.expect(&at(2), false);
        progress.settle(&at(2));
        assert_eq!(moved(&mut progress), None);
        progress.expect(&at(5), true);
        assert_eq!(moved(&mut progress), Some(committed(6, "")));
    }

    #[test]
    fn nothing_is_said_of_a_partition_in_which_nothing_was_done() {
        let mut progress = progress(Done::default());
        progress.expect(&at(2), false);
        assert_eq!(moved(&mut progress), None);
    }

    #[test]
    fn what_is_noted_is_read_again() {
        let done = Done::read(&committed(100, "replayed 2-3,5"));
        let known: Vec<i64> = (98..110).filter(|offset| done.contains(*offset)).collect();
        assert_eq!(known, [98, 99, 102, 103, 105]);
        assert_eq!(done.to_committed(), Some(committed(100, "replayed 2-3,5")));
        for foreign in ["", "replayed ", "replayed x,-", "somebody else's", "replayed 9-2"] {
            assert_eq!(Done::read(&committed(1, foreign)).above, Runs::default(), "{foreign:?}");
        }
    }

    #[test]
    fn a_note_stays_within_what_brokers_take_and_keeps_the_lowest() {
        let mut above = Runs::default();
        (1..100_000).for_each(|number| above.insert(number * 2, number * 2));
        let committed = Done { position: Some(1), above }.to_committed().unwrap();
        assert!((3900..=LONGEST_NOTE).contains(&committed.metadata.len()), "{}", committed.metadata.len());
        let read = Done::read(&committed);
        assert!(read.contains(2) && read.contains(1000) && !read.contains(3) && !read.contains(199_998));
    }
}
