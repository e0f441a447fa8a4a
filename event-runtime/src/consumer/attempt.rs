//! Runs one attempt at one record, whatever its handler does: it may fail, hang or panic.

use std::{
    error::Error as StdError,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

use super::{
    dead_letter::{dead_letter, without_value},
    kinds::{Attempt, Handled},
    metrics::{ConsumerMetrics, EventLabels, GroupGauges, RecordLabels},
    overrun::Overruns,
    router::{Content, Job, UndecodableError},
};
use crate::{
    Clock, HandlerError,
    error::{BoxError, Chain},
    producer::{ProduceError, Producer},
    scheduler::{CrashedError, Outcome, Task},
    telemetry::trace,
};

/// How often a transaction that lost against another is repeated before that counts as a failed attempt.
const CONTENTION_REPEATS: u32 = 50;

/// What all attempts of a consumer share.
pub(super) struct Runner {
    pub(super) group: &'static str,
    pub(super) clock: Clock,
    pub(super) producer: Producer,
    pub(super) timeout: Duration,
    pub(super) metrics: ConsumerMetrics,
    pub(super) gauges: GroupGauges,
    pub(super) overruns: Arc<Overruns>,
}

impl Runner {
    /// Runs `task` for `job`; does not panic where a handler does.
    pub(super) async fn run(self: Arc<Self>, job: Arc<Job>, task: Task, attempt: u32) -> Outcome {
        let span = self.span(&job, attempt);
        match task {
            Task::Handle { last_attempt } => self.handle(&job, attempt, last_attempt).instrument(span).await,
            Task::Bury(error) => self.bury(&job, attempt, &error).instrument(span).await,
        }
    }

    /// The labels of a job's counters.
    pub(super) fn labels(&self, job: &Job) -> EventLabels {
        let topic = job.record.origin.topic.to_string();
        EventLabels { group: self.group, topic, r#type: job.event_type().to_owned() }
    }

    async fn handle(&self, job: &Arc<Job>, attempt: u32, last_attempt: bool) -> Outcome {
        let begun = Instant::now();
        let handler = match &job.content {
            Content::Event { handler, .. } | Content::Raw(handler) => handler,
            Content::Undecodable(why) => return Outcome::Failed(UndecodableError::new(why).into()),
        };
        let handle = async |deadline| {
            let _begun = self.overruns.begin(job, deadline);
            handler.handle(self.attempt(job, attempt, last_attempt, deadline)).await
        };
        match self.contained(CONTENTION_REPEATS, handle).await {
            Ok(handled) => {
                self.count_handled(job, handled, begun.elapsed());
                Outcome::Handled { proves_dependency: handled == Handled::Done }
            }
            Err(error) => {
                job.counters.handler_seconds.observe(begun.elapsed().as_secs_f64());
                Outcome::Failed(error)
            }
        }
    }

    /// The end of a record that was handled before, or dead-lettered, and does not reach its handler.
    pub(super) fn duplicate(&self, job: &Job, attempt: u32) -> Outcome {
        self.span(job, attempt).in_scope(|| self.count_handled(job, Handled::Duplicate, Duration::ZERO));
        Outcome::Handled { proves_dependency: false }
    }

    /// Counts a record that is done, and says so if there was nothing to do.
    pub(super) fn count_handled(&self, job: &Job, handled: Handled, took: Duration) {
        job.counters.handler_seconds.observe(took.as_secs_f64());
        if handled == Handled::Duplicate {
            job.counters.duplicates.inc();
            tracing::info!(origin = %job.record.origin, "duplicate: the event was handled before");
        } else {
            job.counters.handled.inc();
        }
    }

    /// Writes the dead letter, and lets the handler say so. Both are repeated until they succeed: the offset must not be
    /// passed before.
    async fn bury(&self, job: &Arc<Job>, attempts: u32, error: &HandlerError) -> Outcome {
        let handler = match &job.content {
            Content::Raw(_) => {
                let labels = RecordLabels { group: self.group, topic: job.record.origin.topic.to_string() };
                self.metrics.skipped.get_or_create(&labels).inc();
                tracing::error!(origin = %job.record.origin, error = %Chain(error), "skipped a raw record");
                return Outcome::Buried;
            }
            Content::Event { handler, .. } => Some(handler),
            Content::Undecodable(_) => None,
        };
        if !job.dead_lettered.load(Ordering::Relaxed) {
            let letter = dead_letter(self.group, &job.record, error, attempts, job.replays, self.clock.now());
            let sent = match self.producer.send(letter.clone()).await {
                Err(ProduceError::TooLarge { .. }) => self.producer.send(without_value(letter)).await,
                sent => sent,
            };
            match sent {
                Ok(stands) => self.buried(job, attempts, error, &stands),
                Err(failure) => {
                    tracing::error!(
                        origin = %job.record.origin,
                        error = %Chain(&failure),
                        "the dead letter could not be written; trying again"
                    );
                    return Outcome::BuryFailed;
                }
            }
        }
        let Some(handler) = handler else { return Outcome::Buried };
        if error.source_error().downcast_ref::<CrashedError>().is_some_and(|crashed| crashed.untold) {
            tracing::error!(
                origin = %job.record.origin,
                "the process ended while the handler took note of the dead letter; going on without"
            );
            return Outcome::Buried;
        }
        let tell = async |deadline| {
            let _begun = self.overruns.begin(job, deadline);
            handler.exhausted(self.attempt(job, attempts, true, deadline), error).await
        };
        match self.contained(CONTENTION_REPEATS, tell).await {
            Ok(()) => Outcome::Buried,
            // It would be rejected for ever, and hold back its partition. Delivered again, because the process ended before
            // its offset was committed, it must not be handled.
            Err(failure @ HandlerError::Reject(_)) => {
                tracing::error!(
                    origin = %job.record.origin,
                    error = %Chain(&failure),
                    "the handler cannot take note of the dead letter; going on without"
                );
                let note = |deadline| handler.note_dead(self.attempt(job, attempts, true, deadline));
                match self.contained(CONTENTION_REPEATS, note).await {
                    Ok(()) => Outcome::Buried,
                    Err(failure) => not_noted(job, &failure),
                }
            }
            Err(failure) => not_noted(job, &failure),
        }
    }

    fn buried(&self, job: &Job, attempts: u32, error: &HandlerError, stands: &crate::Origin) {
        job.dead_lettered.store(true, Ordering::Relaxed);
        self.metrics.dead_letters.get_or_create(&self.labels(job)).inc();
        tracing::error!(
            origin = %job.record.origin,
            dead_letter = %stands,
            attempts,
            error = %Chain(error),
            "dead letter"
        );
    }

    /// Awaits what a handler does until a deadline, made again up to so many times when it loses against another
    /// transaction. A hang and a panic become the failure of this attempt.
    pub(super) async fn contained<T, F>(&self, repeats: u32, make: impl Fn(Instant) -> F) -> Result<T, HandlerError>
    where
        F: Future<Output = Result<T, HandlerError>>,
    {
        let deadline = Instant::now() + self.timeout;
        let repeated = async {
            for _ in 0..repeats {
                match make(deadline).await {
                    Err(error) if is_contention(&error) => {
                        tracing::debug!(error = %Chain(&error), "lost against another transaction; repeating");
                        tokio::time::sleep(Duration::from_millis(rand::random_range(1..20))).await;
                    }
                    answer => return answer,
                }
            }
            make(deadline).await
        };
        match timeout_at(deadline, AssertUnwindSafe(repeated).catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(HandlerError::retry(format!("the handler panicked: {}", panic_message(&*panic)))),
            Err(_) => Err(HandlerError::retry(format!("the handler did not answer within {:?}", self.timeout))),
        }
    }

    pub(super) fn attempt<'a>(&self, job: &'a Job, attempt: u32, last_attempt: bool, deadline: Instant) -> Attempt<'a> {
        Attempt {
            group: self.group,
            record: &job.record,
            envelope: job.envelope(),
            replay: job.replays,
            attempt,
            last_attempt,
            now: self.clock.now(),
            deadline,
        }
    }

    /// What every log line of the attempt carries. It continues the trace that the event came with.
    pub(super) fn span(&self, job: &Job, attempt: u32) -> Span {
        let envelope = job.envelope();
        let correlation_id = envelope.and_then(|envelope| envelope.correlation_id);
        let span = tracing::info_span!(
            "attempt",
            // Where several services share a process, this tells whose span it is.
            service = self.group,
            otel.name = %format_args!("handle {}", job.event_type()),
            otel.kind = "consumer",
            event = job.event_type(),
            event_id = job.event_id(),
            key = job.key(),
            attempt,
            correlation_id = correlation_id.map(tracing::field::display),
        );
        if let Some(envelope) = envelope {
            trace::set_parent(&span, envelope.traceparent.as_deref(), envelope.tracestate.as_deref());
        }
        span
    }
}

pub(super) fn not_noted(job: &Job, failure: &HandlerError) -> Outcome {
    tracing::error!(
        origin = %job.record.origin,
        error = %Chain(failure),
        "the handler could not take note of the dead letter; trying again"
    );
    Outcome::BuryFailed
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Whether the database asks for the transaction to be repeated: deadlock and serialization failure in PostgreSQL,
/// SQLITE_BUSY and SQLITE_BUSY_SNAPSHOT.
fn is_contention(error: &HandlerError) -> bool {
    let source: &BoxError = error.source_error();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        if let Some(sqlx::Error::Database(refusal)) = error.downcast_ref::<sqlx::Error>() {
            return matches!(refusal.code().as_deref(), Some("40P01" | "40001" | "5" | "517"));
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, error::Error, fmt};

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::is_contention;
    use crate::HandlerError;

    #[derive(Debug)]
    struct Refusal(&'static str);

    impl fmt::Display for Refusal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    /// A service's own error around the database's.
    #[derive(Debug, thiserror::Error)]
    #[error("order 7 cannot be stored")]
    struct Wrapped(#[source] sqlx::Error);

    #[test]
    fn a_lost_race_between_transactions_is_told_from_other_failures() {
        let refused = |code| sqlx::Error::Database(Box::new(Refusal(code)));
        for code in ["40P01", "40001", "5", "517"] {
            assert!(is_contention(&HandlerError::from(refused(code))), "{code}");
            assert!(is_contention(&HandlerError::retry(Wrapped(refused(code)))), "{code}, wrapped");
        }
        assert!(!is_contention(&HandlerError::from(refused("23505"))));
        assert!(matches!(HandlerError::from(refused("57P01")), HandlerError::Unavailable(_)), "the server shuts down");
        assert!(!is_contention(&HandlerError::retry("5")));
    }
}
