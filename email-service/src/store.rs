//! Which mails are under way and which went out, in SQL: one text for PostgreSQL and SQLite.

use event_runtime::{Migration, Tx, database::columns::moment};
use jiff::Timestamp;
use serde::Serialize;
use shared_events::OrderId;
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::letter::Letter;

pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "mails", sql: include_str!("../migrations/0001_mails.sql") }];

/// A mail, as `GET /mails` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    pub order_id: String,
    /// The type of the event it tells of.
    pub about: String,
    pub message_id: String,
    pub to: String,
    pub subject: String,
    /// `sending`, `sent` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when it is in this state.
    pub time: Timestamp,
}

/// Notes that a mail is under way, and says under which Message-ID: the first one stays, whichever event comes next.
/// `None` if it went out already.
///
/// # Errors
/// When the statement fails.
pub async fn begin(
    tx: &mut Tx,
    letter: &Letter,
    message_id: &str,
    now: Timestamp,
) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query(
        "INSERT INTO mails (order_id, about, message_id, recipient, subject, state, changed_at) \
         VALUES ($1, $2, $3, $4, $5, 'sending', $6) \
         ON CONFLICT (order_id, about) DO UPDATE SET changed_at = excluded.changed_at, state = 'sending', error = NULL \
         WHERE mails.state <> 'sent' RETURNING message_id",
    )
    .bind(letter.order_id.to_string())
    .bind(letter.about)
    .bind(message_id)
    .bind(letter.to.as_str())
    .bind(letter.subject.as_str())
    .bind(now.as_microsecond())
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| row.try_get("message_id")).transpose()
}

/// Notes that the mail went out.
///
/// # Errors
/// When the statement fails.
pub async fn sent(tx: &mut Tx, order: OrderId, about: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE mails SET state = 'sent', changed_at = $1 WHERE order_id = $2 AND about = $3")
        .bind(now.as_microsecond())
        .bind(order.to_string())
        .bind(about)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Notes that nobody will send this mail unless its dead letter is replayed.
///
/// # Errors
/// When the statement fails.
pub async fn failed(tx: &mut Tx, order: OrderId, about: &str, error: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE mails SET state = 'failed', error = $1, changed_at = $2 \
         WHERE order_id = $3 AND about = $4 AND state <> 'sent'",
    )
    .bind(error)
    .bind(now.as_microsecond())
    .bind(order.to_string())
    .bind(about)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The mails about an order, the oldest first.
///
/// # Errors
/// When the query fails.
pub async fn of_order(pool: &AnyPool, order: OrderId) -> Result<Vec<Mail>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT order_id, about, message_id, recipient, subject, state, error, changed_at FROM mails \
         WHERE order_id = $1 ORDER BY changed_at, about",
    )
    .bind(order.to_string())
    .fetch_all(pool)
    .await?;
    rows.iter().map(mail).collect()
}

/// The latest mails, the newest first.
///
/// # Errors
/// When the query fails.
pub async fn latest(pool: &AnyPool, limit: i64) -> Result<Vec<Mail>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT order_id, about, message_id, recipient, subject, state, error, changed_at FROM mails \
         ORDER BY changed_at DESC, order_id DESC, about LIMIT $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(mail).collect()
}

fn mail(row: &AnyRow) -> Result<Mail, sqlx::Error> {
    Ok(Mail {
        order_id: row.try_get("order_id")?,
        about: row.try_get("about")?,
        message_id: row.try_get("message_id")?,
        to: row.try_get("recipient")?,
        subject: row.try_get("subject")?,
        state: row.try_get("state")?,
        error: row.try_get("error")?,
        time: moment(row, "changed_at")?,
    })
}
