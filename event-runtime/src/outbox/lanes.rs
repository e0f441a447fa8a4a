//! Which row may be sent now. Pure: no I/O, no clock.
//!
//! Of one key only one row is on its way at any time; the next one starts when that one is acknowledged. Pipelining a
//! key would be faster and wrong: should the first of two records fail for good (its time is up while the broker is
//! away) and the second one pass, no repetition brings them back into order. Idempotence does not help there, it only
//! orders records that succeed.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    bucket::{Bucket, Buckets},
    row::StoredRow,
};

/// The rows that were read and not yet removed from the table.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Keys that have a row on its way, and what waits behind it.
    busy: HashMap<String, VecDeque<StoredRow>>,
    in_hand: HashMap<i64, InHand>,
    bytes: usize,
}

#[derive(Debug)]
struct InHand {
    bucket: Bucket,
    bytes: usize,
}

/// At these bounds no more rows are read, so that a topic nobody acknowledges does not fill the memory.
const MOST_ROWS: usize = 2000;
const MOST_BYTES: usize = 16 * 1024 * 1024;

impl Lanes {
    /// Takes a row as it was read; rows come in their order. Returns it when it may be sent at once.
    pub fn admit(&mut self, row: StoredRow) -> Option<StoredRow> {
        if !self.hold(row.seq, row.bucket, row.size()) {
            return None;
        }
        match self.busy.get_mut(&row.key) {
            Some(waiting) => {
                waiting.push_back(row);
                None
            }
            None => {
                self.busy.insert(row.key.clone(), VecDeque::new());
                Some(row)
            }
        }
    }

    /// Keeps a row from being read again that is not going to be sent. False if it is in hand already.
    pub fn hold(&mut self, seq: i64, bucket: Bucket, bytes: usize) -> bool {
        if self.in_hand.contains_key(&seq) {
            return false;
        }
        self.in_hand.insert(seq, InHand { bucket, bytes });
        self.bytes += bytes;
        true
    }

    /// The row of `key` that was on its way has arrived (or was set aside); returns the one to send next.
    pub fn next(&mut self, key: &str) -> Option<StoredRow> {
        let next = self.busy.get_mut(key)?.pop_front();
        if next.is_none() {
            self.busy.remove(key);
        }
        next
    }

    /// `row` was not sent. It is read again, and before what waits behind it, so that goes as well.
    pub fn withdraw(&mut self, row: &StoredRow) {
        self.removed(row.seq);
        for waiting in self.busy.remove(&row.key).unwrap_or_default() {
            self.removed(waiting.seq);
        }
    }

    /// The row is no longer in the table, or no longer this relay's.
    pub fn removed(&mut self, seq: i64) {
        if let Some(row) = self.in_hand.remove(&seq) {
            self.bytes -= row.bytes;
        }
    }

    /// The rows in hand, which need not be read again.
    pub fn in_hand(&self) -> BTreeMap<Bucket, Vec<i64>> {
        let mut rows: BTreeMap<Bucket, Vec<i64>> = BTreeMap::new();
        for (seq, row) in &self.in_hand {
            rows.entry(row.bucket).or_default().push(*seq);
        }
        rows
    }

    /// The buckets with rows in hand.
    pub fn buckets(&self) -> Buckets {
        self.in_hand.values().map(|row| row.bucket).collect()
    }

    /// How many rows are in hand.
    pub fn len(&self) -> usize {
        self.in_hand.len()
    }

    /// Whether more rows may be read.
    pub fn has_room(&self) -> bool {
        self.in_hand.len() < MOST_ROWS && self.bytes < MOST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_that_is_read_twice_is_sent_once() {
        let mut lanes = Lanes::default();
        assert!(lanes.admit(StoredRow::sample(1, "a")).is_some());
        assert!(lanes.admit(StoredRow::sample(1, "a")).is_none());
        assert_eq!(lanes.next("a"), None);
    }

    #[test]
    fn no_more_is_read_than_memory_is_meant_for() {
        let mut lanes = Lanes::default();
        let rows: Vec<StoredRow> =
            (0..MOST_ROWS).map(|seq| StoredRow::sample(i64::try_from(seq).unwrap(), "a")).collect();
        for row in &rows {
            assert!(lanes.has_room());
            lanes.admit(row.clone());
        }
        assert!(!lanes.has_room());
        lanes.removed(rows[0].seq);
        assert!(lanes.has_room());
    }

    #[test]
    fn few_large_rows_fill_the_memory_as_well() {
        let mut lanes = Lanes::default();
        let bucket = Bucket::of(b"a");
        assert!(lanes.hold(1, bucket, 15 * 1024 * 1024) && lanes.has_room());
        assert!(lanes.hold(2, bucket, 1024 * 1024 - 1) && lanes.has_room());
        assert!(lanes.hold(3, bucket, 1) && !lanes.has_room());
        assert!(!lanes.hold(3, bucket, 1), "it is in hand already");
        lanes.removed(3);
        lanes.removed(3);
        assert!(lanes.has_room());
        assert!(lanes.hold(4, bucket, 1) && !lanes.has_room());
    }

    #[test]
    fn what_is_in_hand_is_known_by_its_bucket() {
        let mut lanes = Lanes::default();
        let [a, b] = [b"a", b"c"].map(|key| Bucket::of(key));
        assert_eq!((lanes.in_hand(), lanes.buckets()), (BTreeMap::new(), Buckets::default()));
        for (seq, key) in [(1, "a"), (2, "c"), (3, "a")] {
            lanes.admit(StoredRow::sample(seq, key));
        }
        let mut in_hand = lanes.in_hand();
        in_hand.values_mut().for_each(|rows| rows.sort_unstable());
        assert_eq!(in_hand, BTreeMap::from([(a, vec![1, 3]), (b, vec![2])]));
        assert_eq!((lanes.len(), lanes.buckets()), (3, [a, b].into_iter().collect()));
        lanes.removed(2);
        assert_eq!(lanes.buckets(), a.into());
    }

    /// Were the second one kept, it would be sent before the first is read again.
    #[test]
    fn a_row_that_is_withdrawn_takes_along_what_waits_behind_it() {
        let mut lanes = Lanes::default();
        let first = lanes.admit(StoredRow::sample(1, "a")).unwrap();
        assert!(lanes.admit(StoredRow::sample(2, "a")).is_none() && lanes.admit(StoredRow::sample(3, "b")).is_some());
        lanes.withdraw(&first);
        assert_eq!(lanes.in_hand.keys().copied().collect::<Vec<_>>(), [3]);
        assert_eq!(lanes.admit(StoredRow::sample(1, "a")).map(|row| row.seq), Some(1));
        assert!(lanes.admit(StoredRow::sample(2, "a")).is_none());
        assert_eq!(lanes.next("a").map(|row| row.seq), Some(2));
    }

    proptest! {
        /// Whatever the order of the acknowledgements: one row of a key at a time, all of them, in sequence.
        #[test]
        fn rows_of_a_key_go_one_by_one_in_sequence(
            keys in proptest::collection::vec(0_u8..4, 1..60),
            mut picks in proptest::collection::vec(0_usize..100, 60),
        ) {
            let mut lanes = Lanes::default();
            let mut sending: Vec<StoredRow> = Vec::new();
            let mut sent: HashMap<String, Vec<i64>> = HashMap::new();
            let mut unread = keys.iter().zip(1..).map(|(key, seq)| StoredRow::sample(seq, &key.to_string())).collect::<VecDeque<_>>();
            let total = unread.len();
            let mut rounds = 0;
            while sent.values().map(Vec::len).sum::<usize>() < total {
                rounds += 1;
                prop_assert!(rounds <= 60 + 3 * total, "{:?} of {} rows were sent", sent, total);
                sending.extend(unread.pop_front().and_then(|row| lanes.admit(row)));
                let keys: HashSet<&String> = sending.iter().map(|row| &row.key).collect();
                prop_assert_eq!(keys.len(), sending.len(), "two rows of one key on their way");
                if let (Some(pick), false) = (picks.pop(), sending.is_empty()) {
                    let row = sending.swap_remove(pick % sending.len());
                    sent.entry(row.key.clone()).or_default().push(row.seq);
                    lanes.removed(row.seq);
                    sending.extend(lanes.next(&row.key));
                } else if unread.is_empty() {
                    picks.push(0);
                }
            }
            for seqs in sent.values() {
                prop_assert!(seqs.is_sorted(), "{:?}", seqs);
            }
            prop_assert!(lanes.in_hand.is_empty() && lanes.bytes == 0 && lanes.busy.is_empty());
        }
    }
}
