//! What the dispatcher wants of the poll thread. Wishes replace each other, so nothing grows and nobody waits.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::scheduler::{Generation, Partition};

#[derive(Default)]
pub(super) struct Commands(Mutex<Wishes>);

/// Wishes since they were last taken. Those for an older generation are to be ignored.
#[derive(Default)]
pub(super) struct Wishes {
    /// The offset to read next.
    pub(super) commits: BTreeMap<Partition, (Generation, i64)>,
    /// Whether to pause (`true`) or to resume.
    pub(super) pauses: BTreeMap<Partition, (Generation, bool)>,
    /// Commit what is to be committed, and leave the group.
    pub(super) close: bool,
    /// Go on with another client.
    pub(super) replace_client: bool,
}

impl Commands {
    pub(super) fn commit(&self, partition: Partition, generation: Generation, offset: i64) {
        self.wishes().commits.insert(partition, (generation, offset));
    }

    pub(super) fn pause(&self, partition: Partition, generation: Generation, pause: bool) {
        self.wishes().pauses.insert(partition, (generation, pause));
    }

    pub(super) fn replace_client(&self) {
        self.wishes().replace_client = true;
    }

    pub(super) fn close(&self) {
        self.wishes().close = true;
    }

    pub(super) fn closing(&self) -> bool {
        self.wishes().close
    }

    pub(super) fn take(&self) -> Wishes {
        let mut wishes = self.wishes();
        let close = wishes.close;
        mem::replace(&mut *wishes, Wishes { close, ..Wishes::default() })
    }

    /// The offset wished for in that generation, which nobody takes after this.
    pub(super) fn take_commit(&self, partition: &Partition, generation: Generation) -> Option<i64> {
        let (wished, offset) = self.wishes().commits.remove(partition)?;
        (wished == generation).then_some(offset)
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        // A wish is one insertion: a thread that panicked has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wish_for_a_partition_is_taken_once_and_the_wish_to_close_for_good() {
        let (commands, partition) = (Commands::default(), Partition { topic: "orders".into(), number: 0 });
        for (offset, pause) in [(5, true), (6, false)] {
            commands.commit(partition.clone(), 1, offset);
            commands.pause(partition.clone(), 1, pause);
        }
        commands.replace_client();
        let wishes = commands.take();
        assert_eq!(wishes.commits, BTreeMap::from([(partition.clone(), (1, 6))]));
        assert_eq!(wishes.pauses, BTreeMap::from([(partition, (1, false))]));
        assert!(wishes.replace_client && !wishes.close && !commands.closing());

        commands.close();
        for _ in 0..2 {
            let wishes = commands.take();
            assert!(wishes.commits.is_empty() && wishes.pauses.is_empty() && !wishes.replace_client);
            assert!(wishes.close && commands.closing());
        }
    }
}
