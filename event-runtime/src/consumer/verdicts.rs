//! What is said and counted of how an attempt ended.

use super::{
    dispatch::{Dispatcher, RunningAttempt},
    router::Job,
};
use crate::{
    HandlerError,
    error::Chain,
    scheduler::{Outcome, Ticket, Verdict},
};

/// What a handler answered that has failed.
#[derive(Default)]
struct Failure {
    error: String,
    rejected: bool,
    unavailable: bool,
}

impl Failure {
    fn of(outcome: &Outcome) -> Failure {
        let Outcome::Failed(error) = outcome else { return Failure::default() };
        Failure {
            error: Chain(error.source_error().as_ref()).to_string(),
            rejected: matches!(error, HandlerError::Reject(_)),
            unavailable: matches!(error, HandlerError::Unavailable(_)),
        }
    }
}

impl Dispatcher {
    pub(super) fn finish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(RunningAttempt { job, attempt, .. }) = self.work.running.remove(&ticket) else { return };
        let failure = Failure::of(&outcome);
        let random = match outcome {
            Outcome::Failed(_) | Outcome::BuryFailed => rand::random(),
            Outcome::Handled { .. } | Outcome::Buried | Outcome::RolledBack => 0.0,
        };
        let verdict = self.scheduler.finish(ticket, outcome, self.now(), random);
        self.report(&job, attempt, &verdict, failure);
    }

    fn report(&self, job: &Job, attempt: u32, verdict: &Verdict, failure: Failure) {
        if matches!(verdict, Verdict::Handled { outage_ended: None }) {
            return;
        }
        let Failure { error, rejected, unavailable } = failure;
        let group = self.router.group;
        let (event, event_id, key, origin) = (job.event_type(), job.event_id(), job.key(), &job.record.origin);
        let metrics = &self.runner.metrics;
        match verdict {
            // A failed dead-letter write has logged itself.
            Verdict::Retry { .. } if error.is_empty() => {}
            Verdict::Retry { pause } => {
                metrics.retried.get_or_create(&self.runner.labels(job)).inc();
                let next_retry_ms = pause.as_millis() as u64;
                tracing::warn!(
                    group, event, event_id, key, %origin, attempt, next_retry_ms, error, "retry"
                );
            }
            Verdict::Bury if rejected => {
                metrics.rejected.get_or_create(&self.runner.labels(job)).inc();
            }
            Verdict::Unavailable { began: true } => {
                metrics.outages.get_or_create(&self.runner.labels(job)).inc();
                if unavailable {
                    tracing::warn!(group, event, event_id, key, %origin, error, "outage: pausing and probing");
                } else {
                    metrics.breaker_openings.get_or_create(&self.runner.labels(job)).inc();
                    tracing::warn!(
                        group, event, event_id, key, %origin, error,
                        "outage: the latest attempts at most keys failed like this, so it is not the records: pausing and \
                         probing"
                    );
                }
            }
            Verdict::Handled { outage_ended: Some(lasted) } => {
                tracing::info!(group, event, event_id, key, lasted_ms = lasted.as_millis() as u64, "outage over");
            }
            Verdict::Stale => {
                tracing::debug!(group, event, event_id, key, %origin, attempt, "ended after its partition was gone");
            }
            Verdict::Alone
            | Verdict::Bury
            | Verdict::Unavailable { began: false }
            | Verdict::Handled { outage_ended: None } => {}
        }
    }
}
