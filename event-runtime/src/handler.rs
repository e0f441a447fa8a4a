//! The kinds of handler. Users write plain `async fn`s, which give their thread back where they wait: code that blocks it
//! (`std::thread::sleep`, a client that is not asynchronous, a long computation) belongs into
//! [`spawn_blocking`](tokio::task::spawn_blocking), since nothing can cut it off at the attempt's deadline.

use std::future::Future;

use shared_events::Event;

use crate::{Delivery, Events, HandlerError, Outbox, Record, RetryPolicy, Tx};

/// Handles an event inside one database transaction: inbox row, the handler's own rows and what it publishes commit
/// together or not at all. No network I/O in here: the transaction holds its locks meanwhile.
///
/// Records that are ready at the same time share a transaction, see
/// [`ConsumerBuilder::batch`](crate::ConsumerBuilder::batch). It is rolled back when one of them fails, and `handle` is
/// then called again for the others, with the same attempt: leave nothing behind but in `tx` and `outbox`.
pub trait TransactionalHandler: Send + Sync + 'static {
    /// What it handles.
    type Event: Event;

    /// How failures are tried again.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Handles one event. What is put into `outbox` is published after the commit, in that order.
    fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<Self::Event>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Called after the last attempt failed and the record was dead-lettered, in the transaction that marks it as
    /// handled: the place to say a failure event, so that nobody waits for ever.
    fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<Self::Event>,
        error: &HandlerError,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (tx, outbox, delivery, error);
        async { Ok(()) }
    }
}

/// Handles the events that are ready at the same time together, in one database transaction: with one statement for all
/// of them where a [`TransactionalHandler`] needs one each. Its guarantees are the same, record by record: each has its
/// inbox row, its place in the order of its key, its retries and its dead letter.
///
/// When handling several fails, nothing of it stands, and each record then runs alone, in a call with one delivery: only
/// then is it known whose failure it is. So never leave a record out, and leave nothing behind but in `tx` and `outboxes`.
pub trait BatchHandler: Send + Sync + 'static {
    /// What it handles: an event, or several as an enum of [`events!`](crate::events).
    type Event: Events;

    /// How failures of events of this type are tried again.
    fn retry(&self, event_type: &str) -> RetryPolicy {
        let _ = event_type;
        RetryPolicy::default()
    }

    /// Handles one event or several. No two of `deliveries` have the same key, and they are sorted by it: who locks what
    /// the keys stand for in this order waits in no ring with others who do. What is put into an outbox, which stands at the
    /// place of its delivery, is published after the commit.
    ///
    /// Log lines that are to name a delivery's event belong into its [`span`](Delivery::span).
    fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<Self::Event>],
        outboxes: &mut [Outbox],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// As [`TransactionalHandler::exhausted`].
    fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<Self::Event>,
        error: &HandlerError,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (tx, outbox, delivery, error);
        async { Ok(()) }
    }
}

/// What [`EffectHandler::prepare`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared<P> {
    /// Do this in the world outside.
    Do(P),
    /// There is nothing to do: the event is marked as handled, without effect and completion.
    Nothing,
}

/// Handles an event that changes the world outside (a charge, a mail): `prepare` in a transaction, `effect` outside of
/// any, `complete` in a second transaction together with the inbox row. A crash after the effect repeats it, under the
/// same idempotency key, instead of losing it.
pub trait EffectHandler: Send + Sync + 'static {
    /// What it handles.
    type Event: Event;
    /// What `prepare` hands to `effect`.
    type Plan: Send + Sync;
    /// What `effect` hands to `complete`.
    type Outcome: Send + Sync;

    /// How failures are tried again.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Decides what to do, and notes that it is under way. Committed before the effect; repeated with every attempt.
    fn prepare(
        &self,
        tx: &mut Tx,
        delivery: &Delivery<Self::Event>,
    ) -> impl Future<Output = Result<Prepared<Self::Plan>, HandlerError>> + Send;

    /// Does it. May be repeated: use an idempotency key that stays the same.
    fn effect(
        &self,
        plan: &Self::Plan,
        delivery: &Delivery<Self::Event>,
    ) -> impl Future<Output = Result<Self::Outcome, HandlerError>> + Send;

    /// Notes what came of it, in one transaction with the inbox row.
    fn complete(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<Self::Event>,
        outcome: Self::Outcome,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Whether carrying `plan` out shows that what this handler depends on works. A plan that asks nobody does not: it
    /// must not end an outage.
    fn proves_dependency(&self, plan: &Self::Plan) -> bool {
        let _ = plan;
        true
    }

    /// As [`TransactionalHandler::exhausted`].
    fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<Self::Event>,
        error: &HandlerError,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (tx, outbox, delivery, error);
        async { Ok(()) }
    }
}

/// Handles an event without a database: at least once, without deduplication.
pub trait PlainHandler: Send + Sync + 'static {
    /// What it handles.
    type Event: Event;

    /// How failures are tried again.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Handles one event.
    fn handle(&self, delivery: &Delivery<Self::Event>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Handles records of any topic as they are, such as dead letters: at least once, nothing decoded, nothing
/// dead-lettered.
pub trait RawHandler: Send + Sync + 'static {
    /// How failures are tried again. Once retries are used up the record is skipped, which is logged and counted.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::unlimited()
    }

    /// Handles one record.
    fn handle(&self, record: &Record) -> impl Future<Output = Result<(), HandlerError>> + Send;
}
