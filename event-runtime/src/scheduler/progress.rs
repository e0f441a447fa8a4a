//! How far the partitions are, and what is in hand: for metrics, the watchdog and people. None of it decides what starts.

use std::time::Duration;

use super::{
    Extent, Flood, Generation, InHand, Lag, Lane, Partition, Scheduler, Stall,
    flood::FloodGuard,
    partition::{Assignment, LaneState},
};

impl<T: Clone> Scheduler<T> {
    /// The flood of dead letters that holds everything up, if there is one.
    pub fn flood(&self) -> Option<Flood> {
        self.guard.as_ref().and_then(FloodGuard::flood)
    }

    /// Notes where a partition ends.
    pub fn note_extent(&mut self, partition: &Partition, generation: Generation, extent: Extent) {
        let assignment = self.partitions.get_mut(partition).filter(|assignment| assignment.generation == generation);
        if let Some(assignment) = assignment {
            assignment.extent = Some(extent);
            assignment.suspicion.note_end(extent.end);
        }
    }

    /// How far behind each assigned partition is.
    pub fn lags(&self) -> impl Iterator<Item = (&Partition, Lag)> {
        self.partitions.iter().map(|(partition, assignment)| (partition, assignment.lag()))
    }

    /// The offset that is to come next from a partition that is assigned, if that is known.
    pub fn next_to_come(&self, partition: &Partition) -> Option<Option<i64>> {
        self.partitions.get(partition).map(Assignment::next_to_come)
    }

    /// The partitions that have given nothing for `patience` although they have not ended. To be asked regularly: the
    /// time counts from the first answer that notices.
    pub fn stalls(&mut self, now: Duration, patience: Duration) -> Vec<Stall> {
        let stalls = self.partitions.iter_mut().filter_map(|(partition, assignment)| {
            let position = assignment.stalled_at(now, patience)?;
            let (generation, end) = (assignment.generation, assignment.extent?.end);
            Some(Stall { partition: partition.clone(), generation, position, end })
        });
        stalls.collect()
    }

    /// There is no record where this partition waits for one: it is no stall until the partition has grown.
    pub fn note_empty(&mut self, stall: &Stall) {
        if let Some(assignment) = self.assignment(&stall.partition, stall.generation) {
            assignment.empty_up_to = stall.end;
        }
    }

    /// Every record in hand of one key.
    pub fn inspect(&self, key: &[u8]) -> Vec<InHand<T>> {
        let lane = Lane::Key(key.into());
        let lanes = self.partitions.values().filter_map(|assignment| assignment.lanes.get(&lane));
        lanes.flat_map(LaneState::in_hand).collect()
    }
}
