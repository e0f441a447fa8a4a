//! The transactional outbox: events are rows in the transaction that causes them; a relay publishes the rows.
//!
//! Rows of one key are first published in the order in which they were committed, provided that their writers hold a
//! lock of their own on what the key stands for (the row of the order) until the commit: then the sequence number a row
//! is given and the moment it becomes visible agree. Each row is published at least once, always with the same event id.
//! A delayed row lives in a table of its own and moves over when it is due; its place in the order counts from then.
//!
//! Every instance of a service runs a relay, and the relays share out the keys among them.

mod bucket;
mod lanes;
mod lease;
mod metrics;
mod outage;
mod poison;
mod publisher;
mod relay;
mod row;
mod session;
mod share;
mod store;
mod table;
mod waiting;
mod wake;
mod work;

use jiff::Timestamp;
use shared_events::{CorrelationId, Envelope, Event, EventId, Topic};
use tracing::Span;

use crate::{Delivery, HandlerError, Tx, telemetry::trace};

use bucket::{Bucket, Buckets};

pub(crate) use wake::Commits;

pub use metrics::Metrics;
pub use poison::{SetAside, requeue, set_aside};
pub use relay::Relay;
pub use table::{Depth, depth};

/// Collects what a transaction publishes. The rows are written in one statement just before the commit.
#[derive(Clone, Debug)]
pub struct Outbox {
    source: &'static str,
    now: Timestamp,
    correlation_id: Option<CorrelationId>,
    causation_id: Option<EventId>,
    attempt: Option<u32>,
    /// Its trace is that of what it publishes.
    span: Span,
    rows: Vec<OutboxRow>,
}

/// An event waiting to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Topic, key and envelope as they will be published.
    pub topic: Topic,
    /// The record key.
    pub key: String,
    /// Becomes the record's headers.
    pub envelope: Envelope,
    /// The record's value.
    pub value: Vec<u8>,
    /// Not published before this moment.
    pub not_before: Option<Timestamp>,
}

/// An event that cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("event {event_type} cannot be written as JSON")]
pub struct EncodeError {
    event_type: &'static str,
    source: serde_json::Error,
}

impl From<EncodeError> for HandlerError {
    fn from(error: EncodeError) -> Self {
        Self::reject(error)
    }
}

impl Outbox {
    /// For work that begins here, such as an HTTP request.
    pub fn root(source: &'static str, correlation_id: CorrelationId, now: Timestamp) -> Outbox {
        Outbox {
            source,
            now,
            correlation_id: Some(correlation_id),
            causation_id: None,
            attempt: None,
            span: Span::current(),
            rows: Vec::new(),
        }
    }

    /// For work that `delivery` causes: correlation, causation and attempt come from it.
    pub fn caused_by<E>(source: &'static str, delivery: &Delivery<E>) -> Outbox {
        Outbox {
            source,
            now: delivery.now,
            correlation_id: delivery.envelope.correlation_id,
            causation_id: Some(delivery.envelope.id),
            attempt: Some(delivery.attempt),
            span: delivery.span.clone(),
            rows: Vec::new(),
        }
    }

    /// Publishes `event` once the transaction has committed.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn publish<E: Event>(&mut self, event: &E) -> Result<EventId, EncodeError> {
        self.push(event, None)
    }

    /// Publishes `event` at `not_before` or soon after; that moment is the event's time.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn publish_at<E: Event>(&mut self, event: &E, not_before: Timestamp) -> Result<EventId, EncodeError> {
        self.push(event, Some(not_before))
    }

    /// Publishes what `other` publishes too: for several pieces of work that share a transaction.
    pub fn include(&mut self, other: &Outbox) {
        self.rows.extend_from_slice(&other.rows);
    }

    /// What several pieces of work that share a transaction publish, in their order.
    pub(crate) fn merged(parts: Vec<Outbox>, now: Timestamp) -> Outbox {
        let rows = parts.into_iter().flat_map(|part| part.rows).collect();
        Outbox { source: "", now, correlation_id: None, causation_id: None, attempt: None, span: Span::none(), rows }
    }

    /// Where its rows are going to be.
    pub(crate) fn buckets(&self) -> Buckets {
        self.rows.iter().map(|row| Bucket::of(row.key.as_bytes())).collect()
    }

    /// What was published so far, in order.
    pub fn rows(&self) -> &[OutboxRow] {
        &self.rows
    }

    fn push<E: Event>(&mut self, event: &E, not_before: Option<Timestamp>) -> Result<EventId, EncodeError> {
        let value = serde_json::to_vec(event).map_err(|source| EncodeError { event_type: E::TYPE, source })?;
        // A delayed event happens when it is due, however long before that it was written.
        let happens_at = not_before.map_or(self.now, |due| due.max(self.now));
        let mut envelope = Envelope::new(event, self.source, happens_at);
        envelope.correlation_id = self.correlation_id;
        envelope.causation_id = self.causation_id;
        envelope.attempt = self.attempt;
        envelope.traceparent = trace::traceparent(&self.span);
        envelope.tracestate = trace::tracestate(&self.span);
        let id = envelope.id;
        self.rows.push(OutboxRow { topic: E::TOPIC, key: event.key(), envelope, value, not_before });
        Ok(id)
    }

    /// Writes the rows into the open transaction.
    pub(crate) async fn store(self, tx: &mut Tx) -> Result<(), sqlx::Error> {
        let (delayed, due): (Vec<_>, Vec<_>) =
            self.rows.into_iter().partition(|row| row.not_before.is_some_and(|moment| moment > self.now));
        store::due(tx, due, self.now).await?;
        store::delayed(tx, delayed).await
    }
}

/// A row that Kafka has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event's id.
    pub event_id: EventId,
    /// Where it stands now.
    pub origin: crate::Origin,
}

/// Told of published rows, in the transaction that removes them from the outbox. At least once.
pub trait OnPublished: Send + Sync + 'static {
    /// Notes where the events stand.
    fn published<'a>(
        &'a self,
        tx: &'a mut Tx,
        rows: &'a [Published],
    ) -> futures_util::future::BoxFuture<'a, Result<(), sqlx::Error>>;
}

#[cfg(test)]
mod tests {
    use shared_events::{OrderDeadlineReached, OrderId};

    use super::*;

    #[test]
    fn what_is_included_is_published_too_and_afterwards() {
        let now = Timestamp::UNIX_EPOCH;
        let [mut one, mut other] = [(); 2].map(|()| Outbox::root("test", CorrelationId::new(), now));
        let ids = [&mut one, &mut other]
            .map(|outbox| outbox.publish(&OrderDeadlineReached { order_id: OrderId::new() }).unwrap());
        one.include(&other);
        assert_eq!(one.rows().iter().map(|row| row.envelope.id).collect::<Vec<_>>(), ids);
    }
}
