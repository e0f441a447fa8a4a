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

impl Dispatcher {
    pub(super) fn finish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(RunningAttempt { job, attempt, .. }) = self.work.running.remove(&ticket) else { return };
        let failure = match &outcome {
            Outcome::Failed(error) => Chain(error.source_error().as_ref()).to_string(),
            Outcome::Handled { .. } | Outcome::Buried | Outcome::BuryFailed | Outcome::RolledBack => String::new(),
        };
        let rejected = matches!(outcome, Outcome::Failed(HandlerError::Reject(_)));
        let verdict = self.scheduler.finish(ticket, outcome, self.now(), rand::random());
        self.report(&job, attempt, &verdict, &failure, rejected);
    }

    fn report(&self, job: &Job, attempt: u32, verdict: &Verdict, failure: &str, rejected: bool) {
        let group = self.router.group;
        let (event, event_id, key, origin) = (job.event_type(), job.event_id(), job.key(), &job.record.origin);
        let metrics = &self.runner.metrics;
        match verdict {
            // A failed dead-letter write has logged itself.
            Verdict::Retry { .. } if failure.is_empty() => {}
            Verdict::Retry { pause } => {
                metrics.retried.get_or_create(&self.runner.labels(job)).inc();
                let next_retry_ms = pause.as_millis() as u64;
                tracing::warn!(
                    group, event, event_id, key, %origin, attempt, next_retry_ms, error = failure, "retry"
                );
            }
            Verdict::Bury if rejected => {
                metrics.rejected.get_or_create(&self.runner.labels(job)).inc();
            }
            Verdict::Unavailable { began: true } => {
                metrics.outages.get_or_create(&self.runner.labels(job)).inc();
                tracing::warn!(group, event, event_id, key, %origin, error = failure, "outage: pausing and probing");
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
