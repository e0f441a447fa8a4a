//! Runs a batch: several records in one transaction, each still by its own handler.
//!
//! ```text
//! begin · one insert for all inbox rows · handle, handle, … · one insert for all outbox rows · commit
//! ```
//!
//! A handler that takes several gets them in rounds: in the first the first record of each key, in the second the second.
//!
//! Whatever goes wrong with one of them rolls back all, and each then runs alone: only then is it known whose failure it
//! was, and only then does it count. A handler may so be called for a record whose transaction is undone, as at any repeat.

use std::{
    collections::HashSet,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use shared_events::EventId;
use tokio::time::Instant;
use tracing::Span;

use super::{
    attempt::Runner,
    kinds::{Attempt, Handled},
    metrics::GroupLabels,
    router::{Content, Job},
};
use crate::{Database, HandlerError, Outbox, error::Chain, inbox, scheduler::Outcome};

/// How often a batch is repeated that lost against another transaction, before its records run alone. PostgreSQL takes
/// a second to notice a deadlock.
const REPEATS: u32 = 2;

/// A record of a batch. It is its first attempt.
pub(super) struct Member {
    pub(super) job: Arc<Job>,
    pub(super) last_attempt: bool,
}

/// How a batch ended.
pub(super) struct BatchEnded {
    /// Of each member.
    pub(super) outcomes: Vec<Outcome>,
    /// What the transaction took, if it was committed.
    pub(super) took: Option<Duration>,
    /// Whether it lost against other transactions.
    pub(super) contended: bool,
}

/// A member with what its handling needs.
struct Handling<'a> {
    job: &'a Arc<Job>,
    event: EventId,
    handler: &'a dyn super::kinds::Handler,
    last_attempt: bool,
    span: Span,
    /// Its place in the batch.
    place: usize,
}

struct Committed {
    /// By place: how it was handled, and what that took.
    handled: Vec<(Handled, Duration)>,
    took: Duration,
}

impl Runner {
    /// Runs a batch; does not panic where a handler does.
    pub(super) async fn run_batch(self: Arc<Self>, members: Vec<Member>) -> BatchEnded {
        let begun = Instant::now();
        let mut handlings: Vec<_> =
            members.iter().enumerate().filter_map(|(place, member)| self.handling(place, member)).collect();
        // Batches that run side by side take the rows of the same keys in one order, so that they seldom wait in a ring.
        // The sort is stable: records of one key keep their order.
        handlings.sort_by(|one, other| one.job.record.key.cmp(&other.job.record.key));
        let tries = AtomicU32::new(0);
        let answer = self
            .contained(REPEATS, |deadline| {
                tries.fetch_add(1, Ordering::Relaxed);
                self.transaction(&handlings, deadline)
            })
            .await;
        let contended = tries.into_inner() > 1;
        match answer {
            Ok(Committed { handled, took }) => {
                self.count(&handlings, &handled, begun.elapsed());
                let outcome = |(handled, _): &(Handled, Duration)| Outcome::Handled {
                    proves_dependency: *handled == Handled::Done,
                };
                BatchEnded { outcomes: handled.iter().map(outcome).collect(), took: Some(took), contended }
            }
            Err(error) => {
                self.metrics.batches_rolled_back.get_or_create(&GroupLabels { group: self.group }).inc();
                let records = members.len();
                tracing::debug!(
                    group = self.group,
                    records,
                    error = %Chain(error.source_error().as_ref()),
                    "a batch was rolled back; its records run alone"
                );
                let outcomes = members.iter().map(|_| Outcome::RolledBack).collect();
                BatchEnded { outcomes, took: None, contended }
            }
        }
    }

    fn handling<'a>(&self, place: usize, member: &'a Member) -> Option<Handling<'a>> {
        let Content::Event { envelope, handler } = &member.job.content else { return None };
        let span = self.span(&member.job, 1);
        let (job, last_attempt, event) = (&member.job, member.last_attempt, envelope.id);
        Some(Handling { job, event, handler: &**handler, last_attempt, span, place })
    }

    async fn transaction<'a>(
        &'a self,
        handlings: &[Handling<'a>],
        deadline: Instant,
    ) -> Result<Committed, HandlerError> {
        let database = shared_database(handlings)?;
        let now = self.clock.now();
        let mut tx = database.begin().await?;
        let begun = Instant::now();
        let events = handlings.iter().map(|handling| handling.event).collect();
        let mut new: HashSet<EventId> = inbox::record_all(&mut tx, self.group, events, now).await?;
        let mut handled = vec![(Handled::Duplicate, Duration::ZERO); handlings.len()];
        let mut published = Vec::with_capacity(handlings.len());
        // Of an event that is in the batch twice, the second is the duplicate.
        for call in calls(handlings.iter().filter(|handling| new.remove(&handling.event))) {
            let began = Instant::now();
            let attempt = |of: &&Handling<'a>| {
                let attempt = Attempt { now, ..self.attempt(of.job, 1, of.last_attempt, deadline) };
                (attempt, of.span.clone())
            };
            let attempts = call.iter().map(attempt).collect();
            // The first stands for all of them: nobody could tell which of them blocks the thread.
            let _begun = self.overruns.begin(call[0].job, deadline);
            published.append(&mut call[0].handler.handle_within(&mut tx, attempts).await?);
            let took = began.elapsed() / call.len() as u32;
            call.iter().for_each(|handling| handled[handling.place] = (Handled::Done, took));
        }
        database.commit(tx, Outbox::merged(published, now)).await?;
        Ok(Committed { handled, took: begun.elapsed() })
    }

    /// Counts each record as if it had run alone: with its own time, and its share of what was done for all.
    fn count(&self, handlings: &[Handling<'_>], handled: &[(Handled, Duration)], took: Duration) {
        let records = handled.len() as u32;
        let own: Duration = handled.iter().map(|(_, took)| *took).sum();
        let share = took.saturating_sub(own) / records.max(1);
        for Handling { job, span, place, .. } in handlings {
            let (handled, took) = handled[*place];
            span.in_scope(|| self.count_handled(job, handled, took + share));
        }
        self.metrics.batch_records.get_or_create(&GroupLabels { group: self.group }).observe(f64::from(records));
    }
}

/// What each call of a handler gets, of handlings that are sorted by their keys: with others of its handler if that takes
/// several, and no two of one key.
fn calls<'h, 'a>(handlings: impl Iterator<Item = &'h Handling<'a>>) -> Vec<Vec<&'h Handling<'a>>> {
    let mut rounds: Vec<Vec<Vec<&Handling<'a>>>> = Vec::new();
    let (mut round, mut before) = (0, None);
    for handling in handlings {
        let key = handling.job.record.key.as_deref();
        round = if key.is_some() && before == Some(key) { round + 1 } else { 0 };
        before = Some(key);
        if rounds.len() == round {
            rounds.push(Vec::new());
        }
        let same = |call: &&mut Vec<&Handling<'a>>| ptr::addr_eq(call[0].handler, handling.handler);
        match rounds[round].iter_mut().filter(|_| handling.handler.takes_several()).find(same) {
            Some(call) => call.push(handling),
            None => rounds[round].push(vec![handling]),
        }
    }
    rounds.into_iter().flatten().collect()
}

/// Only handlers of one database have their records put into one batch.
fn shared_database<'a>(handlings: &[Handling<'a>]) -> Result<&'a Database, HandlerError> {
    let database = handlings.first().and_then(|handling| handling.handler.shares());
    database.ok_or_else(|| HandlerError::retry("a batch without a database"))
}
