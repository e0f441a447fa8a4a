//! Partitions come and go.

use event_runtime::scheduler::Partition;
use rand::RngExt;

use super::World;

impl World {
    /// Stops, drains some or all of what runs, commits.
    pub(super) fn revoke(&mut self) {
        let Some(partition) = self.pick_owned() else { return };
        self.scheduler.stop(&partition);
        let complete = self.random.random_bool(0.7);
        for _ in 0..200 {
            if !self.scheduler.is_draining(&partition) || (!complete && self.random.random_bool(0.3)) {
                break;
            }
            self.finish_one();
            self.start_others(&partition);
        }
        // Nothing waits for a retry, a dependency, an attempt of an older generation, or the end of a flood.
        let whole = !self.scheduler.is_draining(&partition)
            && self.scheduler.flood().is_none()
            && self.scheduler.blocked_lanes() == 0
            && self.running.values().all(|running| running.entry.partition != partition);
        if let Some(offset) = self.scheduler.remove(&partition) {
            self.committed_to(&partition, offset);
            let above = self.told.range((partition.clone(), offset)..).find(|(other, _)| *other == partition);
            assert!(!whole || above.is_none(), "I5: {above:?} is handled and drained, and cannot be committed");
        }
        self.owned.remove(&partition);
        self.give_back(&partition);
    }

    /// While one partition is drained the others go on, and of it only gaps start.
    pub(super) fn start_others(&mut self, drained: &Partition) {
        self.scheduler.advance(self.now);
        while let Some(start) = self.scheduler.start_next() {
            let gap = self.begun.get(drained).is_some_and(|begun| start.payload.offset < *begun);
            assert!(start.payload.partition != *drained || gap, "of a stopped partition only gaps start");
            self.started_batch(start);
            let batch = self.batches.last().expect("it has just started");
            let gaps = batch.iter().filter(|it| self.running[it].entry.partition == *drained).count();
            assert!(gaps == 0 || batch.len() == 1, "gaps run alone");
        }
    }

    pub(super) fn lose(&mut self) {
        let Some(partition) = self.pick_owned() else { return };
        self.scheduler.remove(&partition);
        self.owned.remove(&partition);
        self.give_back(&partition);
    }

    pub(super) fn reassign(&mut self) {
        let free = self.log.keys().find(|partition| !self.owned.contains_key(partition)).cloned();
        if let Some(partition) = free {
            self.assign(partition);
        }
    }

    pub(super) fn reassign_all(&mut self) {
        for partition in self.log.keys().cloned().collect::<Vec<_>>() {
            if !self.owned.contains_key(&partition) {
                self.assign(partition);
            }
        }
    }

    pub(super) fn pick_owned(&mut self) -> Option<Partition> {
        let owned: Vec<_> = self.owned.keys().cloned().collect();
        (!owned.is_empty()).then(|| owned[self.random.random_range(0..owned.len())].clone())
    }
}
