//! The kinds of handler behind one object-safe trait: what brackets a handler's own code.
//!
//! | kind | around the handler |
//! | --- | --- |
//! | transactional, batch | begin · inbox row · handler · outbox rows · commit; or several in a [batch](super::batch) |
//! | effect | begin · seen? · `prepare` · commit, then `effect`, then begin · inbox row · `complete` · outbox rows · commit |
//! | plain | nothing |
//! | raw | nothing, not even decoding |

use std::{slice, sync::Arc};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use shared_events::Envelope;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::router::{UndecodableError, WrongKeyError};
use crate::{
    BatchHandler, Database, Delivery, EffectHandler, Events, HandlerError, Outbox, PlainHandler, Prepared, RawHandler,
    Record, RetryPolicy, TransactionalHandler, Tx,
    inbox::{self, Fate},
};

/// One attempt at one record.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) group: &'static str,
    pub(super) record: &'a Record,
    /// `None` for raw records.
    pub(super) envelope: Option<&'a Arc<Envelope>>,
    /// Which replay of a dead letter this is; 0 for a record that is none. See [`inbox`].
    pub(super) replay: u32,
    pub(super) attempt: u32,
    pub(super) last_attempt: bool,
    pub(super) now: Timestamp,
    /// Until when it may run.
    pub(super) deadline: Instant,
}

/// How a record was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handled {
    /// By its handler.
    Done,
    /// There was nothing to do in the world outside.
    Nothing,
    /// It had been handled before.
    Duplicate,
}

pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, HandlerError>>;

pub(super) trait Handler: Send + Sync {
    fn retry(&self, event_type: &str) -> RetryPolicy;

    fn handle<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, Handled>;

    /// The database in whose transactions records of this handler may be handled with others, by
    /// [`Handler::handle_within`].
    fn shares(&self) -> Option<&Database> {
        None
    }

    /// Whether [`Handler::handle_within`] takes several records at once.
    fn takes_several(&self) -> bool {
        false
    }

    /// Handles records whose inbox rows are written, in a transaction with others, and answers what each publishes.
    fn handle_within<'a>(&'a self, tx: &'a mut Tx, attempts: Vec<(Attempt<'a>, Span)>) -> Answer<'a, Vec<Outbox>> {
        let _ = (tx, attempts);
        Box::pin(async { Err(HandlerError::reject("this handler shares no transaction")) })
    }

    /// Tells the handler that its record was dead-lettered, and notes that in the inbox.
    fn exhausted<'a>(&'a self, attempt: Attempt<'a>, error: &'a HandlerError) -> Answer<'a, ()> {
        let _ = (attempt, error);
        Box::pin(async { Ok(()) })
    }

    /// Only notes that in the inbox, for a handler that cannot be told.
    fn note_dead<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, ()> {
        let _ = attempt;
        Box::pin(async { Ok(()) })
    }
}

/// A [`TransactionalHandler`] as a [`BatchHandler`] that takes one delivery at a time.
pub(super) struct OneByOne<H>(pub(super) H);

impl<H: TransactionalHandler> BatchHandler for OneByOne<H> {
    type Event = H::Event;

    fn retry(&self, _event_type: &str) -> RetryPolicy {
        self.0.retry()
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<H::Event>],
        outboxes: &mut [Outbox],
    ) -> Result<(), HandlerError> {
        for (delivery, outbox) in deliveries.iter().zip(outboxes) {
            self.0.handle(tx, outbox, delivery).instrument(delivery.span.clone()).await?;
        }
        Ok(())
    }

    async fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<H::Event>,
        error: &HandlerError,
    ) -> Result<(), HandlerError> {
        self.0.exhausted(tx, outbox, delivery, error).await
    }
}

pub(super) struct Transactional<H> {
    pub(super) database: Database,
    pub(super) handler: H,
    /// Whether the consumer's batches are transactions of this database.
    pub(super) shares: bool,
    pub(super) takes_several: bool,
}

impl<H: BatchHandler> Handler for Transactional<H> {
    fn retry(&self, event_type: &str) -> RetryPolicy {
        self.handler.retry(event_type)
    }

    fn handle<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, Handled> {
        Box::pin(async move {
            let delivery = attempt.decode()?;
            let Some((mut tx, mut outbox)) = attempt.mark(&self.database, &delivery, Fate::Handled).await? else {
                return Ok(Handled::Duplicate);
            };
            let (deliveries, outboxes) = (slice::from_ref(&delivery), slice::from_mut(&mut outbox));
            attempt.own(self.handler.handle_batch(&mut tx, deliveries, outboxes)).await?;
            self.database.commit(tx, outbox).await?;
            Ok(Handled::Done)
        })
    }

    fn shares(&self) -> Option<&Database> {
        self.shares.then_some(&self.database)
    }

    fn takes_several(&self) -> bool {
        self.takes_several
    }

    fn handle_within<'a>(&'a self, tx: &'a mut Tx, attempts: Vec<(Attempt<'a>, Span)>) -> Answer<'a, Vec<Outbox>> {
        Box::pin(async move {
            let Some((first, _)) = attempts.first() else { return Ok(Vec::new()) };
            let decode = |(attempt, span): &(Attempt<'_>, Span)| span.in_scope(|| attempt.decode());
            let deliveries = attempts.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            let mut outboxes: Vec<_> = attempts
                .iter()
                .zip(&deliveries)
                .map(|((attempt, _), delivery)| Outbox::caused_by(attempt.group, delivery))
                .collect();
            first.own(self.handler.handle_batch(tx, &deliveries, &mut outboxes)).await?;
            Ok(outboxes)
        })
    }

    fn exhausted<'a>(&'a self, attempt: Attempt<'a>, error: &'a HandlerError) -> Answer<'a, ()> {
        Box::pin(async move {
            let Ok(delivery) = attempt.decode() else { return Ok(()) };
            let Some((mut tx, mut outbox)) = attempt.mark(&self.database, &delivery, Fate::Dead).await? else {
                return Ok(());
            };
            self.handler.exhausted(&mut tx, &mut outbox, &delivery, error).await?;
            Ok(self.database.commit(tx, outbox).await?)
        })
    }

    fn note_dead<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, ()> {
        Box::pin(async move { Ok(attempt.note_dead(&self.database).await?) })
    }
}

pub(super) struct Effect<H> {
    pub(super) database: Database,
    pub(super) handler: H,
}

impl<H: EffectHandler> Handler for Effect<H> {
    fn retry(&self, _event_type: &str) -> RetryPolicy {
        self.handler.retry()
    }

    fn handle<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, Handled> {
        Box::pin(async move {
            let delivery = attempt.decode()?;
            let id = delivery.envelope.id;
            let mut tx = self.database.begin().await?;
            if inbox::seen(&mut tx, attempt.group, id, attempt.replay).await? {
                tx.rollback().await?;
                return Ok(Handled::Duplicate);
            }
            let plan = match attempt.own(self.handler.prepare(&mut tx, &delivery)).await? {
                Prepared::Do(plan) => plan,
                Prepared::Nothing => {
                    inbox::record(&mut tx, attempt.group, id, attempt.replay, Fate::Handled, attempt.now).await?;
                    tx.commit().await?;
                    return Ok(Handled::Nothing);
                }
            };
            tx.commit().await?;
            // A crash from here to the last commit repeats the effect, under the same idempotency key.
            let outcome = attempt.own(self.handler.effect(&plan, &delivery)).await?;
            let Some((mut tx, mut outbox)) = attempt.mark(&self.database, &delivery, Fate::Handled).await? else {
                return Ok(Handled::Duplicate);
            };
            attempt.own(self.handler.complete(&mut tx, &mut outbox, &delivery, outcome)).await?;
            self.database.commit(tx, outbox).await?;
            Ok(if self.handler.proves_dependency(&plan) { Handled::Done } else { Handled::Nothing })
        })
    }

    fn exhausted<'a>(&'a self, attempt: Attempt<'a>, error: &'a HandlerError) -> Answer<'a, ()> {
        Box::pin(async move {
            let Ok(delivery) = attempt.decode() else { return Ok(()) };
            let Some((mut tx, mut outbox)) = attempt.mark(&self.database, &delivery, Fate::Dead).await? else {
                return Ok(());
            };
            self.handler.exhausted(&mut tx, &mut outbox, &delivery, error).await?;
            Ok(self.database.commit(tx, outbox).await?)
        })
    }

    fn note_dead<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, ()> {
        Box::pin(async move { Ok(attempt.note_dead(&self.database).await?) })
    }
}

pub(super) struct Plain<H>(pub(super) H);

impl<H: PlainHandler> Handler for Plain<H> {
    fn retry(&self, _event_type: &str) -> RetryPolicy {
        self.0.retry()
    }

    fn handle<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, Handled> {
        Box::pin(async move {
            let delivery = attempt.decode()?;
            attempt.own(self.0.handle(&delivery)).await?;
            Ok(Handled::Done)
        })
    }
}

pub(super) struct Raw<H>(pub(super) H);

impl<H: RawHandler> Handler for Raw<H> {
    fn retry(&self, _event_type: &str) -> RetryPolicy {
        self.0.retry()
    }

    fn handle<'a>(&'a self, attempt: Attempt<'a>) -> Answer<'a, Handled> {
        Box::pin(async move {
            attempt.own(self.0.handle(attempt.record)).await?;
            Ok(Handled::Done)
        })
    }
}

impl Attempt<'_> {
    fn decode<E: Events>(&self) -> Result<Delivery<E>, HandlerError> {
        let envelope = self.envelope.ok_or_else(|| UndecodableError::new("it has no envelope"))?;
        let value = self.record.value.as_deref().unwrap_or_default();
        let event = E::decode(&envelope.event_type, value)
            .map_err(|error| UndecodableError::new(&format!("its value is no {}: {error}", envelope.event_type)))?;
        WrongKeyError::check(self.record, &envelope.event_type, &event.key())?;
        Ok(Delivery {
            event,
            envelope: envelope.clone(),
            origin: self.record.origin.clone(),
            attempt: self.attempt,
            last_attempt: self.last_attempt,
            now: self.now,
            deadline: self.deadline,
            span: Span::current(),
        })
    }

    /// Awaits a handler's own code. Code that blocks its thread is not cut off at the deadline, so what it answers after it
    /// is its failure, and nothing of it is committed.
    async fn own<T>(&self, code: impl Future<Output = Result<T, HandlerError>>) -> Result<T, HandlerError> {
        let answer = code.await?;
        match Instant::now().checked_duration_since(self.deadline) {
            None => Ok(answer),
            Some(late) => Err(HandlerError::retry(format!("the handler answered {late:?} after its deadline"))),
        }
    }

    /// Whether the inbox of `database` says that nothing may follow.
    pub(super) async fn is_done(&self, database: &Database) -> Result<bool, sqlx::Error> {
        let Some(envelope) = self.envelope else { return Ok(false) };
        let mut tx = database.begin().await?;
        let seen = inbox::seen(&mut tx, self.group, envelope.id, self.replay).await?;
        tx.rollback().await?;
        Ok(seen)
    }

    pub(super) async fn note_dead(&self, database: &Database) -> Result<(), sqlx::Error> {
        let Some(envelope) = self.envelope else { return Ok(()) };
        let mut tx = database.begin().await?;
        inbox::record(&mut tx, self.group, envelope.id, self.replay, Fate::Dead, self.now).await?;
        tx.commit().await
    }

    /// Begins the transaction that decides the event's `fate`: with its inbox row, and an outbox for what follows. `None`
    /// when nothing may follow.
    async fn mark<E>(
        &self,
        database: &Database,
        delivery: &Delivery<E>,
        fate: Fate,
    ) -> Result<Option<(Tx, Outbox)>, sqlx::Error> {
        let mut tx = database.begin().await?;
        let id = delivery.envelope.id;
        if !inbox::record(&mut tx, self.group, id, self.replay, fate, self.now).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        Ok(Some((tx, Outbox::caused_by(self.group, delivery))))
    }
}
