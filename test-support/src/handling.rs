//! Driving a handler as the consumer does, without Kafka.

use std::{sync::Arc, time::Duration};

use event_runtime::{
    BatchHandler, Database, Delivery, EffectHandler, HandlerError, Origin, Outbox, Prepared, outbox::OutboxRow,
};
use jiff::Timestamp;
use shared_events::{CorrelationId, Envelope, Event};
use tokio::time::Instant;
use tracing::Span;

const SOURCE: &str = "test";
/// As consumers have it by default.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// A first attempt at `event`, under a new event id, at `now`.
pub fn delivery<E: Event>(event: E, now: Timestamp) -> Delivery<E> {
    let mut envelope = Envelope::new(&event, SOURCE, now);
    envelope.correlation_id = Some(CorrelationId::new());
    let origin = Origin { topic: E::TOPIC.name.into(), partition: 0, offset: 0 };
    Delivery {
        event,
        envelope: Arc::new(envelope),
        origin,
        attempt: 1,
        last_attempt: false,
        now,
        deadline: Instant::now() + HANDLER_TIMEOUT,
        span: Span::none(),
    }
}

/// Handles one delivery in a transaction of its own, which is committed if that went well. Returns what was published.
///
/// # Errors
/// What the handler answers; then nothing is stored.
///
/// # Panics
/// When the database fails around the handler.
pub async fn handle<H: BatchHandler, E: Clone + Into<H::Event>>(
    database: &Database,
    handler: &H,
    delivery: &Delivery<E>,
) -> Result<Vec<OutboxRow>, HandlerError> {
    let mut published = handle_all(database, handler, &[delivery.clone().map(Into::into)]).await?;
    Ok(published.pop().expect("what was published by the only delivery"))
}

/// Handles deliveries in one transaction, which is committed if that went well. Returns what each published.
///
/// # Errors
/// What the handler answers; then nothing is stored.
///
/// # Panics
/// When the database fails around the handler.
pub async fn handle_all<H: BatchHandler>(
    database: &Database,
    handler: &H,
    deliveries: &[Delivery<H::Event>],
) -> Result<Vec<Vec<OutboxRow>>, HandlerError> {
    let mut tx = database.begin().await.expect("a transaction can begin");
    let mut outboxes: Vec<_> = deliveries.iter().map(|delivery| Outbox::caused_by(SOURCE, delivery)).collect();
    handler.handle_batch(&mut tx, deliveries, &mut outboxes).await?;
    let published = outboxes.iter().map(|outbox| outbox.rows().to_vec()).collect();
    let Some((mut all, others)) = outboxes.split_first().map(|(first, others)| (first.clone(), others)) else {
        return Ok(published);
    };
    others.iter().for_each(|outbox| all.include(outbox));
    database.commit(tx, all).await.expect("the transaction can be committed");
    Ok(published)
}

/// Calls `exhausted` with `error`, as after the last attempt. Returns what was published.
///
/// # Errors
/// What the handler answers; then nothing is stored.
///
/// # Panics
/// When the database fails around the handler.
pub async fn exhaust<H: BatchHandler, E: Clone + Into<H::Event>>(
    database: &Database,
    handler: &H,
    delivery: &Delivery<E>,
    error: &HandlerError,
) -> Result<Vec<OutboxRow>, HandlerError> {
    let delivery = delivery.clone().map(Into::into);
    let mut tx = database.begin().await.expect("a transaction can begin");
    let mut outbox = Outbox::caused_by(SOURCE, &delivery);
    handler.exhausted(&mut tx, &mut outbox, &delivery, error).await?;
    let published = outbox.rows().to_vec();
    database.commit(tx, outbox).await.expect("the transaction can be committed");
    Ok(published)
}

/// Prepares, does and completes an effect, as the consumer does. Returns what was published; nothing if there was
/// nothing to do.
///
/// # Errors
/// What the handler answers at any of the three steps; what earlier steps stored stays.
///
/// # Panics
/// When the database fails around the handler.
pub async fn effect<H: EffectHandler>(
    database: &Database,
    handler: &H,
    delivery: &Delivery<H::Event>,
) -> Result<Vec<OutboxRow>, HandlerError> {
    let mut tx = database.begin().await.expect("a transaction can begin");
    let prepared = handler.prepare(&mut tx, delivery).await?;
    tx.commit().await.expect("the transaction can be committed");
    let Prepared::Do(plan) = prepared else { return Ok(Vec::new()) };
    let outcome = handler.effect(&plan, delivery).await?;
    let mut tx = database.begin().await.expect("a transaction can begin");
    let mut outbox = Outbox::caused_by(SOURCE, delivery);
    handler.complete(&mut tx, &mut outbox, delivery, outcome).await?;
    let published = outbox.rows().to_vec();
    database.commit(tx, outbox).await.expect("the transaction can be committed");
    Ok(published)
}

/// The event in an outbox row.
///
/// # Panics
/// When it is of another type.
pub fn published<E: Event>(row: &OutboxRow) -> E {
    assert_eq!(row.envelope.event_type, E::TYPE);
    serde_json::from_slice(&row.value).expect("what was published can be read")
}
