//! Records that may have ended the process: an abort, no memory, a kill from outside.
//!
//! A partition is *held* until it is known how its earlier owner left it ([`Scheduler::admit`]). One that ended without
//! giving it back may have been killed by anybody. But when the next one ends as well before the partition was handled
//! any further, one of the records in hand may be the cause, and nobody knows which: the partition is *careful*. A
//! careful record is attempted alone, nothing else of the scheduler beside it, so that whoever starts the attempt can
//! note durably which record it is and another death has a culprit. From then on the record is careful wherever it
//! turns up, its deaths count as attempts, and after the last it is dead-lettered without its handler.
//!
//! How long a partition stays careful: what ran when its owner died is among the first records that are not handled.
//! So it is over after some times as many fresh successes or dead letters as attempts may run side by side, and no
//! fewer than a transaction may hold; what was handled before the death (`proves_dependency: false`) counts for nothing,
//! for there may be any number of it above a record that waits. Should the cause stand farther behind, it kills once
//! more, but each life leaves fewer before it. And it is over where the partition ended when it was assigned: the dead
//! one cannot have seen more.

use std::collections::BTreeMap;

use super::{Generation, Lane, Partition, Scheduler, batch::Batching, partition::Assignment};

/// How an earlier owner left a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// How many owners in a row ended without giving it back, and without handling it beyond `reached`.
    pub deaths: u32,
    /// Everything below was handled before.
    pub reached: i64,
    /// How often a record has ended the process that handled it alone, by offset.
    pub crashes: BTreeMap<i64, u32>,
    /// The record that the owner before was attempting alone when it ended.
    pub culprit: Option<i64>,
}

impl Legacy {
    /// Whether one of the partition's records may be the cause: nobody kills the same one twice at the same place, and
    /// a culprit's neighbours were in the same hands.
    pub fn is_suspect(&self) -> bool {
        self.deaths > 1 || self.culprit.is_some()
    }
}

/// A record that has ended its process too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process ended {crashes} times while it handled this record and no other (an abort, out of memory, a kill), so it \
     is not handled again; look for the cause in the last lines of the process and in the system's log, mend it, then \
     replay this dead letter"
)]
pub struct CrashedError {
    /// How often.
    pub crashes: u32,
    /// Whether it did so even while its handler was told of the dead letter: then the handler is not told.
    pub untold: bool,
}

/// How many records have to be done, for each attempt that may run, until a partition is careful no more.
const PER_ATTEMPT: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// So many records may still be the cause.
    left: usize,
    /// Where the partition ended when it was assigned, once that is known.
    end: Option<i64>,
    crashes: BTreeMap<i64, u32>,
}

impl Suspicion {
    pub(super) fn covers(&self, offset: i64) -> bool {
        self.crashes.contains_key(&offset) || (self.left > 0 && self.end.is_none_or(|end| offset < end))
    }

    pub(super) fn crashes(&self, offset: i64) -> u32 {
        self.crashes.get(&offset).copied().unwrap_or(0)
    }

    pub(super) fn note_end(&mut self, end: i64) {
        self.end.get_or_insert(end);
    }

    /// The record at `offset` is done; whether it was not before.
    pub(super) fn done(&mut self, offset: i64, fresh: bool) {
        self.crashes.remove(&offset);
        self.left = self.left.saturating_sub(usize::from(fresh));
    }

    /// Whether no record from the position on may be the cause.
    fn is_over(&self, position: impl FnOnce() -> Option<i64>) -> bool {
        if self.left == 0 && self.crashes.is_empty() {
            return true;
        }
        let position = position();
        let passed = |end: i64| position.is_some_and(|position| position >= end);
        let known = self.crashes.last_key_value().is_some_and(|(offset, _)| !passed(offset + 1));
        !known && (self.left == 0 || self.end.is_some_and(passed))
    }
}

impl<T: Clone> Scheduler<T> {
    /// A partition is ours from now on, but nothing of it starts before it is admitted.
    pub fn assign_held(&mut self, partition: Partition, generation: Generation) {
        self.assign(partition.clone(), generation);
        if let Some(assignment) = self.partitions.get_mut(&partition) {
            assignment.held = true;
        }
    }

    /// Whether the partition is assigned in this generation and not admitted.
    pub fn is_held(&self, partition: &Partition, generation: Generation) -> bool {
        self.partitions.get(partition).is_some_and(|it| it.held && it.generation == generation)
    }

    /// Lets a partition's records start that was held.
    pub fn admit(&mut self, partition: &Partition, generation: Generation, legacy: Legacy) {
        if !self.is_held(partition, generation) {
            return;
        }
        let Some(assignment) = self.partitions.get_mut(partition) else { return };
        // The dead one may have had that many in a transaction.
        let batch = self.batching.as_ref().map_or(0, Batching::most);
        let left = self.limits.concurrency.saturating_mul(PER_ATTEMPT).max(batch);
        let left = if legacy.is_suspect() { left } else { 0 };
        let end = assignment.extent.map(|extent| extent.end);
        assignment.suspicion = Suspicion { left, end, crashes: legacy.crashes };
        assignment.held = false;
        for pending in assignment.lanes.values_mut().flat_map(|lane| &mut lane.queue) {
            pending.note_crashes(assignment.suspicion.crashes(pending.offset));
        }
        if !assignment.ready.is_empty() {
            self.turns.push_back(partition.clone());
        }
    }

    /// How many partitions are held.
    pub fn held(&self) -> usize {
        self.partitions.values().filter(|assignment| assignment.held).count()
    }

    /// How many partitions have records that are handled alone.
    pub fn careful(&self) -> usize {
        let careful = |assignment: &&Assignment<T>| !assignment.suspicion.is_over(|| assignment.position());
        self.partitions.values().filter(careful).count()
    }

    /// Whether an attempt runs beside which no other may.
    pub(super) fn runs_alone(&self) -> bool {
        self.running.values().take(1).any(|running| running.careful)
    }

    /// Whether the head of a lane has to wait until nothing runs.
    pub(super) fn waits_to_be_alone(&self, partition: &Partition, lane: &Lane) -> bool {
        !self.running.is_empty() && self.partitions.get(partition).is_some_and(|it| it.is_careful(lane))
    }
}
