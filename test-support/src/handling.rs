//! Driving a handler as the consumer does, without Kafka.

use event_runtime::{
    Database, Delivery, EffectHandler, HandlerError, Origin, Outbox, Prepared, TransactionalHandler, outbox::OutboxRow,
};
use jiff::Timestamp;
use shared_events::{CorrelationId, Envelope, Event};

const SOURCE: &str = "test";

/// A first attempt at `event`, under a new event id, at `now`.
pub fn delivery<E: Event>(event: E, now: Timestamp) -> Delivery<E> {
    let mut envelope = Envelope::new(&event, SOURCE, now);
    envelope.correlation_id = Some(CorrelationId::new());
    let origin = Origin { topic: E::TOPIC.name.to_owned(), partition: 0, offset: 0 };
    Delivery { event, envelope, origin, attempt: 1, last_attempt: false, now }
}

/// Handles in one transaction, which is committed if that went well. Returns what was published.
///
/// # Errors
/// What the handler answers; then nothing is stored.
///
/// # Panics
/// When the database fails around the handler.
pub async fn handle<H: TransactionalHandler>(
    database: &Database,
    handler: &H,
    delivery: &Delivery<H::Event>,
) -> Result<Vec<OutboxRow>, HandlerError> {
    let mut tx = database.begin().await.expect("a transaction can begin");
    let mut outbox = Outbox::caused_by(SOURCE, delivery);
    handler.handle(&mut tx, &mut outbox, delivery).await?;
    let published = outbox.rows().to_vec();
    database.commit(tx, outbox).await.expect("the transaction can be committed");
    Ok(published)
}

/// Calls `exhausted` with `error`, as after the last attempt. Returns what was published.
///
/// # Errors
/// What the handler answers; then nothing is stored.
///
/// # Panics
/// When the database fails around the handler.
pub async fn exhaust<H: TransactionalHandler>(
    database: &Database,
    handler: &H,
    delivery: &Delivery<H::Event>,
    error: &HandlerError,
) -> Result<Vec<OutboxRow>, HandlerError> {
    let mut tx = database.begin().await.expect("a transaction can begin");
    let mut outbox = Outbox::caused_by(SOURCE, delivery);
    handler.exhausted(&mut tx, &mut outbox, delivery, error).await?;
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
