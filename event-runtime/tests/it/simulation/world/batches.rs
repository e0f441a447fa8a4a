//! Records that share a transaction start and end together.

use std::time::Duration;

use event_runtime::scheduler::{Outcome, Start};
use rand::RngExt;

use super::{CONCURRENCY, Entry, World};

impl World {
    /// Takes in what starts, with all that the scheduler lets share its transaction.
    pub(super) fn started_batch(&mut self, first: Start<Entry>) {
        assert!(self.batches.len() < CONCURRENCY, "more batches than allowed");
        let mut batch = vec![first.ticket];
        let joined = self.scheduler.join(first.ticket);
        assert!(joined.len() < self.batching.0.max(1), "a batch of {} records", joined.len() + 1);
        let shared = !joined.is_empty();
        self.counts.shared += u64::from(shared);
        self.started(first, shared, &[]);
        for start in joined {
            let ticket = start.ticket;
            self.started(start, shared, &batch);
            batch.push(ticket);
        }
        self.batches.push(batch);
    }

    /// One of the batches ends: all of its records are handled, or all are undone because of one, or for no reason of
    /// theirs.
    pub(super) fn finish_one(&mut self) {
        if self.batches.is_empty() {
            return;
        }
        let batch = self.batches.remove(self.random.random_range(0..self.batches.len()));
        if let Some(killer) = batch.iter().map(|ticket| &self.running[ticket]).find(|it| self.kills(it)) {
            return self.die(killer.careful);
        }
        let mut outcomes = Vec::new();
        for ticket in &batch {
            let (entry, attempt, bury) = {
                let running = &self.running[ticket];
                (running.entry.clone(), running.attempt, running.bury)
            };
            outcomes.push(self.outcome(&entry, attempt, bury));
        }
        if batch.len() > 1 {
            let failed = outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Handled { .. }));
            if failed || self.random.random_bool(0.05) {
                outcomes.iter_mut().for_each(|outcome| *outcome = Outcome::RolledBack);
                self.scheduler.batch_failed();
                if self.random.random_bool(0.2) {
                    self.scheduler.batch_contended(batch[0]);
                }
            } else {
                let took = Duration::from_millis(self.random.random_range(0..40));
                self.scheduler.batch_committed(batch.len(), took);
            }
        }
        for (ticket, outcome) in batch.into_iter().zip(outcomes) {
            self.finish(ticket, outcome);
        }
    }
}
