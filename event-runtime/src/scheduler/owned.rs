//! What a member owns, as whoever polls for it knows it, and what of that is to be committed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Generation, Partition};

/// The only partitions that a commit, a pause or a resume may name: the broker looks at who commits, not at what, and
/// accepts from a member in good standing a commit for a partition that it gave back, which rewinds the group.
#[derive(Debug, Default)]
pub struct Owned(HashMap<Arc<str>, BTreeMap<i32, OwnedPartition>>);

/// One of them.
#[derive(Debug)]
pub struct OwnedPartition {
    /// In which assignment.
    pub generation: Generation,
    /// One above the last record that was handed to the dispatcher.
    pub next: Option<i64>,
    /// Whether nothing is fetched.
    pub paused: bool,
    /// To be committed.
    pub wanted: Option<i64>,
    /// What was last handed over to be committed.
    pub sent: Option<i64>,
}

impl Owned {
    /// The partition in that generation.
    pub fn current(&mut self, partition: &Partition, generation: Generation) -> Option<&mut OwnedPartition> {
        self.get_mut(&partition.topic, partition.number).filter(|owned| owned.generation == generation)
    }

    /// Notes that a record is handed on: its partition and generation, unless the partition is not ours.
    pub fn passed(&mut self, topic: &str, number: i32, offset: i64) -> Option<(Partition, Generation)> {
        let name = self.0.get_key_value(topic)?.0.clone();
        let owned = self.get_mut(topic, number)?;
        owned.next = Some(offset + 1);
        Some((Partition { topic: name, number }, owned.generation))
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Partition, &mut OwnedPartition)> {
        self.0.iter_mut().flat_map(|(topic, partitions)| {
            partitions.iter_mut().map(|(number, owned)| (Partition { topic: topic.clone(), number: *number }, owned))
        })
    }

    /// A partition is ours from now on.
    pub fn add(&mut self, partition: &Partition, generation: Generation) {
        let owned = OwnedPartition { generation, next: None, paused: false, wanted: None, sent: None };
        self.0.entry(partition.topic.clone()).or_default().insert(partition.number, owned);
    }

    /// It is ours no longer.
    pub fn remove(&mut self, partition: &Partition) -> Option<OwnedPartition> {
        self.0.get_mut(&partition.topic)?.remove(&partition.number)
    }

    /// None is ours any longer.
    pub fn take_all(&mut self) -> Vec<Partition> {
        let all = self.iter_mut().map(|(partition, _)| partition).collect();
        self.0.clear();
        all
    }

    /// Notes what is to be committed, unless that is the word of an older assignment.
    pub fn wish(&mut self, partition: &Partition, generation: Generation, offset: i64) {
        if let Some(owned) = self.current(partition, generation) {
            owned.wanted = Some(offset);
        }
    }

    /// What is to be committed and was not handed over yet. To be asked for when nothing is under way any more: two commits
    /// of a partition could pass each other.
    pub fn take_uncommitted(&mut self) -> Vec<(Partition, i64)> {
        let moved = self.iter_mut().filter_map(|(partition, owned)| {
            let wanted = owned.wanted.filter(|wanted| owned.sent != Some(*wanted))?;
            owned.sent = Some(wanted);
            Some((partition, wanted))
        });
        moved.collect()
    }

    /// These were not committed, as far as anybody knows: what is wanted by now goes again, of what is still ours.
    pub fn commit_again(&mut self, offsets: &[(Partition, i64)]) {
        for (partition, offset) in offsets {
            let owned = self.get_mut(&partition.topic, partition.number);
            if let Some(owned) = owned.filter(|owned| owned.sent == Some(*offset)) {
                owned.sent = None;
            }
        }
    }

    fn get_mut(&mut self, topic: &str, number: i32) -> Option<&mut OwnedPartition> {
        self.0.get_mut(topic)?.get_mut(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, number: i32) -> Partition {
        Partition { topic: topic.into(), number }
    }

    #[test]
    fn a_partition_is_ours_in_its_generation_until_it_is_taken_away() {
        let mut owned = Owned::default();
        owned.add(&partition("orders", 1), 7);
        assert!(owned.current(&partition("orders", 1), 7).is_some());
        for (topic, number, generation) in [("orders", 1, 6), ("orders", 2, 7), ("mails", 1, 7)] {
            assert!(owned.current(&partition(topic, number), generation).is_none());
        }
        assert!(owned.remove(&partition("orders", 2)).is_none());
        assert_eq!(owned.remove(&partition("orders", 1)).unwrap().generation, 7);
        assert!(owned.get_mut("orders", 1).is_none() && owned.remove(&partition("orders", 1)).is_none());
    }

    #[test]
    fn a_record_is_handed_on_once_its_partition_is_ours_and_the_one_behind_it_is_next() {
        let mut owned = Owned::default();
        assert_eq!(owned.passed("orders", 1, 41), None);
        owned.add(&partition("orders", 1), 7);
        assert_eq!(owned.passed("orders", 2, 41), None);
        assert_eq!(owned.passed("orders", 1, 41), Some((partition("orders", 1), 7)));
        assert_eq!(owned.get_mut("orders", 1).unwrap().next, Some(42));
    }

    #[test]
    fn all_are_taken_at_once() {
        let mut owned = Owned::default();
        let all = [partition("mails", 0), partition("orders", 0), partition("orders", 1)];
        all.iter().for_each(|partition| owned.add(partition, 7));
        assert_eq!(owned.iter_mut().filter(|(_, owned)| owned.generation == 7).count(), 3);
        let mut taken = owned.take_all();
        taken.sort();
        assert_eq!(taken, all);
        assert!(owned.take_all().is_empty());
    }
}
