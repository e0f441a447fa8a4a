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

    /// Whether `row` may be handed to the producer now.
    pub fn allows(&self, row: &StoredRow, now: Instant) -> bool {
        let state = self.state();
        state.until.is_some_and(|until| now < until)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::bucket::Bucket;

    fn bucket(number: i64) -> Bucket {
        Bucket::numbered(number).unwrap()
    }

    fn set(numbers: &[i64]) -> Buckets {
        numbers.iter().map(|number| bucket(*number)).collect()
    }

    fn fences(fences: &[(i64, i64)]) -> Fences {
        fences.iter().map(|(number, fence)| (bucket(*number), *fence)).collect()
    }

    fn row(number: i64, fence: i64) -> StoredRow {
        StoredRow { bucket: bucket(number), fence, ..StoredRow::sample(1, "k") }
    }

    /// Holds 1 and 2, and is to give 2 back.
    fn share(began: Instant) -> Share {
        let share = Share::default();
        let standing = Standing { held: fences(&[(1, 10), (2, 20)]), surplus: set(&[2]), free: Buckets::default() };
        share.extended(&standing, began);
        share
    }

    #[test]
    fn a_row_may_go_while_its_bucket_is_held_under_the_fence_it_was_read_with_and_not_to_be_given_back() {
        let began = Instant::now();
        assert!(!Share::default().allows(&row(1, 10), began), "nothing is known yet");
        let share = share(began);
        assert!(share.allows(&row(1, 10), began));
        assert!(!share.allows(&row(1, 9), began), "read when it was held before");
        assert!(!share.allows(&row(2, 20), began), "another relay is to have it");
        assert!(!share.allows(&row(3, 10), began), "not held");
        share.taken(fences(&[(3, 30)]));
        assert!(share.allows(&row(3, 30), began));
        share.given_back(set(&[3]));
        assert!(!share.allows(&row(3, 30), began));
    }

    #[test]
    fn leases_are_relied_on_for_less_than_they_last_from_before_they_were_extended() {
        let began = Instant::now();
        let share = share(began);
        assert!(RELIED_ON < crate::outbox::lease::DURATION.unsigned_abs());
        assert!(share.allows(&row(1, 10), began + RELIED_ON - Duration::from_nanos(1)));
        assert!(!share.allows(&row(1, 10), began + RELIED_ON));
    }

    #[test]
    fn what_is_to_be_given_back_is_held_but_not_read() {
        let share = share(Instant::now());
        assert_eq!((share.held(), share.leaving(), share.open()), (set(&[1, 2]), set(&[2]), fences(&[(1, 10)])));
        share.given_back(set(&[2]));
        assert_eq!((share.held(), share.leaving(), share.open()), (set(&[1]), set(&[]), fences(&[(1, 10)])));
        share.taken(fences(&[(2, 21)]));
        assert_eq!(share.open(), fences(&[(1, 10), (2, 21)]), "had again");
    }
}
