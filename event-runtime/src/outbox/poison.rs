//! Rows that were set aside because they can never be published, for operators: which there are, and back with them.

use jiff::Timestamp;
use serde::Serialize;
use shared_events::EventId;
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::bucket::Bucket;
use crate::{
    Database, Tx,
    database::columns::{bytes_of, moment},
};

/// A row that was set aside. What cannot be read of it is shown as far as it can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// Its place among all rows of the outbox.
    pub seq: i64,
    /// The event's id.
    pub event_id: String,
    /// Where it was to be published.
    pub topic: String,
    /// The record's key.
    pub key: String,
    /// How long its value is.
    pub bytes: u64,
    /// When it was due.
    pub due_at: Timestamp,
    /// When a relay gave up.
    pub set_aside_at: Timestamp,
    /// Why.
    pub reason: String,
    /// What of it a relay could not read even now; it is not worth putting back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<&'static str>,
}

/// All rows that were set aside in `database`, the oldest first.
///
/// # Errors
/// When the database fails.
pub async fn set_aside(database: &Database) -> Result<Vec<SetAside>, sqlx::Error> {
    // What was set aside need not be text.
    let [event_id, topic, key, headers] =
        ["event_id", "topic", "record_key", "headers"].map(|column| bytes_of(column, database.dialect()));
    let sql = format!(
        "SELECT seq, {event_id}, {topic}, {key}, {headers}, LENGTH(value), created_at, set_aside_at, reason \
         FROM outbox_poison ORDER BY seq"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(database.pool()).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<SetAside, sqlx::Error> {
    let texts = [1, 2, 3, 4].map(|column| row.try_get::<Vec<u8>, _>(column));
    let [event_id, topic, key, headers] = texts;
    let (event_id, topic, key, headers) = (event_id?, topic?, key?, headers?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let unreadable = if text(&event_id).parse::<EventId>().is_err() {
        Some("event_id")
    } else if std::str::from_utf8(&topic).is_err() {
        Some("topic")
    } else if std::str::from_utf8(&key).is_err() {
        Some("record_key")
    } else if serde_json::from_slice::<Vec<(String, String)>>(&headers).is_err() {
        Some("headers")
    } else {
        None
    };
    Ok(SetAside {
        seq: row.try_get(0)?,
        event_id: text(&event_id),
        topic: text(&topic),
        key: text(&key),
        bytes: length(row, 5)?,
        due_at: moment(row, 6)?,
        set_aside_at: moment(row, 7)?,
        reason: row.try_get(8)?,
        unreadable,
    })
}

/// PostgreSQL's lengths are 32 bits wide, SQLite's 64.
fn length(row: &AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    let length = row.try_get::<i64, _>(column).or_else(|_| row.try_get::<i32, _>(column).map(i64::from))?;
    Ok(length.unsigned_abs())
}

/// Moves `row` to the end of the outbox, where the order of its key counts anew. False if somebody else has done so.
///
/// # Errors
/// When the database fails; the row then stays where it is.
pub async fn requeue(database: &Database, row: &SetAside, now: Timestamp) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !lock(&mut tx, row.seq).await? {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) \
         SELECT event_id, topic, record_key, headers, value, $1, $2 FROM outbox_poison WHERE seq = $3",
    )
    .bind(Bucket::of(row.key.as_bytes()).number())
    .bind(now.as_microsecond())
    .bind(row.seq)
    .execute(tx.conn())
    .await?;
    sqlx::query("DELETE FROM outbox_poison WHERE seq = $1").bind(row.seq).execute(tx.conn()).await?;
    tx.commit().await?;
    Ok(true)
}

async fn lock(tx: &mut Tx, seq: i64) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query("UPDATE outbox_poison SET reason = reason WHERE seq = $1").bind(seq).execute(tx.conn());
    Ok(locked.await?.rows_affected() == 1)
}
