//! What a relay may publish at the moment. The loop sets it, whatever sends a row asks for it first.
//!
//! Kafka knows no fencing numbers, so the last look is before a row is handed to the producer: should the process be stopped
//! between the two and go on when another relay has the bucket, the row is published by both. It then keeps its event id,
//! and what it came first with is in order all the same.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    bucket::{Buckets, Fences},
    lease::Standing,
    row::StoredRow,
};

/// The buckets of a relay, as it knows them.
#[derive(Default)]
pub(super) struct Share(Mutex<State>);

#[derive(Default)]
struct State {
    held: Fences,
    /// Held still, and given back once nothing of them is on its way.
    leaving: Buckets,
    until: Option<Instant>,
}

/// For how long leases that were extended are relied on: less than they last.
const RELIED_ON: Duration = Duration::from_secs(4);

impl Share {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leases were extended, at some time after `began`.
    pub fn extended(&self, standing: &Standing, began: Instant) {
        let (held, leaving) = (standing.held.clone(), standing.surplus);
        *self.state() = State { held, leaving, until: Some(began + RELIED_ON) };
    }

    pub fn taken(&self, buckets: Fences) {
        self.state().held.extend(buckets);
    }

    pub fn given_back(&self, buckets: Buckets) {
        let mut state = self.state();
        state.held.retain(|bucket, _| !buckets.contains(*bucket));
        state.leaving = state.leaving.without(buckets);
    }

    /// Whether `row` may be handed to the producer.
    pub fn allows(&self, row: &StoredRow) -> bool {
        let state = self.state();
        state.until.is_some_and(|until| Instant::now() < until)
            && state.held.get(&row.bucket) == Some(&row.fence)
            && !state.leaving.contains(row.bucket)
    }

    /// The buckets to read.
    pub fn open(&self) -> Fences {
        let state = self.state();
        state
            .held
            .iter()
            .filter(|(bucket, _)| !state.leaving.contains(**bucket))
            .map(|(b, fence)| (*b, *fence))
            .collect()
    }

    pub fn held(&self) -> Buckets {
        self.state().held.keys().copied().collect()
    }

    pub fn leaving(&self) -> Buckets {
        self.state().leaving
    }
}
