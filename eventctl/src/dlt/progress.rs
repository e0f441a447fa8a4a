//! How far the replay's group may say that it is: up to the first letter of each partition that is still to be replayed,
//! by this run or by another one. So a selective replay loses nothing of what it did not select.

use std::collections::BTreeMap;

use event_runtime::Origin;

#[derive(Debug, Default)]
pub struct Progress {
    partitions: BTreeMap<(String, i32), Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    /// What the group has committed.
    committed: Option<i64>,
    /// The offset up to which everything is settled, where that is more than what is committed.
    settled: Option<i64>,
    /// Offsets at or above the committed one, and whether nothing is to be done with them any more.
    open: BTreeMap<i64, bool>,
}

impl Progress {
    pub fn new(positions: &BTreeMap<(String, i32), Option<i64>>) -> Progress {
        let partition = |committed: &Option<i64>| Partition { committed: *committed, ..Partition::default() };
        Progress { partitions: positions.iter().map(|(name, at)| (name.clone(), partition(at))).collect() }
    }

    /// There is a letter at `place`; what is below the group's position says nothing about what is above.
    pub fn expect(&mut self, place: &Origin, settled: bool) {
        let partition = self.of(place);
        if partition.committed.is_none_or(|committed| place.offset >= committed) {
            partition.open.insert(place.offset, settled);
        }
    }

    /// The letter at `place` is done with.
    pub fn settle(&mut self, place: &Origin) {
        if let Some(settled) = self.of(place).open.get_mut(&place.offset) {
            *settled = true;
        }
    }

    /// The positions that have moved since this was asked last.
    pub fn moved(&mut self) -> BTreeMap<(String, i32), i64> {
        let mut moved = BTreeMap::new();
        for (name, partition) in &mut self.partitions {
            while let Some(first) = partition.open.first_entry().filter(|first| *first.get()) {
                partition.settled = Some(first.remove_entry().0 + 1);
            }
            if let Some(settled) = partition.settled.take() {
                partition.committed = Some(settled);
                moved.insert(name.clone(), settled);
            }
        }
        moved
    }

    fn of(&mut self, place: &Origin) -> &mut Partition {
        self.partitions.entry((place.topic.clone(), place.partition)).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Origin {
        Origin { topic: "t".to_owned(), partition: 0, offset }
    }

    fn progress(committed: Option<i64>) -> Progress {
        Progress::new(&BTreeMap::from([(("t".to_owned(), 0), committed)]))
    }

    fn moved(progress: &mut Progress) -> Option<i64> {
        progress.moved().remove(&("t".to_owned(), 0))
    }

    #[test]
    fn the_position_stops_at_the_first_letter_that_waits() {
        let mut progress = progress(None);
        for (offset, settled) in [(3, true), (4, false), (6, false), (9, false)] {
            progress.expect(&at(offset), settled);
        }
        assert_eq!(moved(&mut progress), Some(4), "what is settled from the beginning is passed");
        progress.settle(&at(6));
        assert_eq!(moved(&mut progress), None, "4 still waits");
        progress.settle(&at(4));
        assert_eq!(moved(&mut progress), Some(7));
        assert_eq!(moved(&mut progress), None, "it is said once");
    }

    #[test]
    fn the_position_never_moves_back() {
        let mut progress = progress(Some(5));
        progress.expect(&at(2), false);
        progress.settle(&at(2));
        assert_eq!(moved(&mut progress), None);
        progress.expect(&at(5), true);
        assert_eq!(moved(&mut progress), Some(6));
    }
}
