//! Which events a consumer group has handled: a set of ids, so that A, B, A applies A once.
//!
//! A row is written in the transaction that holds the event's effect. Rows are kept longer than the topic keeps its
//! records; [`clean`] removes older ones.

use jiff::Timestamp;
use shared_events::EventId;

use crate::{Database, Tx};

/// Whether `group` has handled `event`.
///
/// # Errors
/// When the database fails.
pub async fn seen(tx: &mut Tx, group: &str, event: EventId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM inbox WHERE consumer_group = $1 AND event_id = $2")
        .bind(group)
        .bind(event.to_string())
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.is_some())
}

/// Notes that `group` handles `event` in this transaction. False when it had been handled before: then nothing may
/// follow. A concurrent transaction with the same event waits here until the other one has ended.
///
/// # Errors
/// When the database fails.
pub async fn record(tx: &mut Tx, group: &str, event: EventId, now: Timestamp) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO inbox (consumer_group, event_id, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(group)
    .bind(event.to_string())
    .bind(now.as_microsecond())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets events that were handled before `before`, a few at a time so that no handler waits long. Returns how many.
///
/// # Errors
/// When the database fails; what was removed so far stays removed.
pub async fn clean(database: &Database, before: Timestamp) -> Result<u64, sqlx::Error> {
    const BATCH: i64 = 1000;
    let mut removed = 0;
    loop {
        let mut tx = database.begin().await?;
        let done = sqlx::query(
            "DELETE FROM inbox WHERE (consumer_group, event_id) IN \
             (SELECT consumer_group, event_id FROM inbox WHERE handled_at < $1 LIMIT $2)",
        )
        .bind(before.as_microsecond())
        .bind(BATCH)
        .execute(tx.conn())
        .await?
        .rows_affected();
        tx.commit().await?;
        removed += done;
        if done < BATCH.unsigned_abs() {
            return Ok(removed);
        }
    }
}
