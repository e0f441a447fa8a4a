use event_runtime::{
    ConsumerBuilder, Database, HandlerError, RawHandler, Record, consumer::dead_letter::DeadLetter,
    telemetry::trace::trace_id,
};
use jiff::Timestamp;
use shared_events::{EventId, OrderId, topics};
use uuid::Uuid;

use crate::store::{self, Entry};

/// Puts what any service could not handle of an order into the order's timeline.
pub struct NoteDeadLetter {
    database: Database,
}

/// The consumer of all dead letters. A group of its own: a flood of them does not hold up the saga.
pub fn consumer(database: &Database) -> ConsumerBuilder {
    let handler = NoteDeadLetter { database: database.clone() };
    ConsumerBuilder::new(topics::ORDER_TIMELINE_GROUP)
        .concurrency(1)
        .raw(topics::dead_letter_topics().collect(), handler)
}

impl RawHandler for NoteDeadLetter {
    async fn handle(&self, record: &Record) -> Result<(), HandlerError> {
        // What has no order, or is written by somebody else's tool, belongs to no timeline; `eventctl dlt` shows it.
        let Some((order_id, entry)) = line(record) else { return Ok(()) };
        let mut tx = self.database.begin().await?;
        let known = store::note_if_known(&mut tx, order_id, &entry).await?;
        tx.commit().await?;
        if known {
            tracing::warn!(order = %order_id, detail = entry.detail, "dead letter");
        }
        Ok(())
    }
}

/// The order a dead letter is about, and its line.
fn line(record: &Record) -> Option<(OrderId, Entry)> {
    let order_id: OrderId = std::str::from_utf8(record.key.as_deref()?).ok()?.parse().ok()?;
    let letter = DeadLetter::read(record)?;
    let envelope = record.envelope().ok();
    let what = envelope.as_ref().map_or("a record that is no event", |envelope| envelope.event_type.as_str());
    let attempts = if letter.attempts == 1 { "attempt" } else { "attempts" };
    let detail = format!("{what} at {}, after {} {attempts}: {}", letter.original, letter.attempts, letter.error);
    let entry = Entry {
        event_id: envelope.as_ref().map_or_else(|| id_of_place(&letter), |envelope| envelope.id),
        time: letter.failed_at.or(record.timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
        service: letter.group.clone(),
        dead_letter_of: Some(letter.group),
        event: "dead-letter".to_owned(),
        topic: record.origin.topic.to_string(),
        place: Some((record.origin.partition, record.origin.offset)),
        attempt: Some(letter.attempts),
        trace_id: envelope.and_then(|envelope| trace_id(envelope.traceparent.as_deref()?)),
        detail: Some(detail),
    };
    Some((order_id, entry))
}

/// What stands in for the id of a record that has none: always the same for the same record.
fn id_of_place(letter: &DeadLetter) -> EventId {
    EventId(Uuid::new_v5(&Uuid::NAMESPACE_OID, letter.original.to_string().as_bytes()))
}
