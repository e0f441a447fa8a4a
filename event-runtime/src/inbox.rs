//! Which events a consumer group has handled: a set of ids, so that A, B, A applies A once.
//!
//! A row is written in the transaction that holds the event's effect. Rows are kept longer than the topic keeps its
//! records ([`kept_for`]); [`clean`] removes older ones.
//!
//! A dead letter leaves a row as well, so that its repetition says nothing twice; its replay must get through all the
//! same, but only while nobody has handled the event: the record may have been delivered again after its letter was
//! written, and handled then. So there is one row an event, and it says whether the event is handled or which replay of it
//! was dead-lettered last (0: the record itself). A replay takes the row over from an earlier dead letter only.

use std::{collections::HashSet, fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp};
use shared_events::EventId;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    Database, Tx,
    database::{columns::undecodable, rows},
};

/// How many events a statement names.
const MOST_EVENTS: usize = 256;

/// How many rows are removed in one transaction.
const BATCH: usize = 1000;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was handled.
    Handled,
    /// It was dead-lettered; a later replay may still handle it.
    Dead,
}

/// Whether `group` is done with `event` as far as `replay` is concerned: see [`record`].
///
/// # Errors
/// When the database fails.
pub async fn seen(tx: &mut Tx, group: &str, event: EventId, replay: u32) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT 1 FROM inbox WHERE consumer_group = $1 AND event_id = $2 AND (dead_replay IS NULL OR dead_replay >= $3)",
    )
    .bind(group)
    .bind(event.to_string())
    .bind(i64::from(replay))
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.is_some())
}

/// Notes in this transaction what became of `event` in `group`. False when nothing may follow: it had been handled before,
/// or this `replay` (0 for a record that is none) or a later one was dead-lettered. A concurrent transaction with the same
/// event waits here until the other one has ended.
///
/// # Errors
/// When the database fails.
pub async fn record(
    tx: &mut Tx,
    group: &str,
    event: EventId,
    replay: u32,
    fate: Fate,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let dead_replay = match fate {
        Fate::Handled => None,
        Fate::Dead => Some(i64::from(replay)),
    };
    let done = sqlx::query(
        "INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (consumer_group, event_id) DO UPDATE \
         SET handled_at = excluded.handled_at, dead_replay = excluded.dead_replay WHERE inbox.dead_replay < $5",
    )
    .bind(group)
    .bind(event.to_string())
    .bind(now.as_microsecond())
    .bind(dead_replay)
    .bind(i64::from(replay))
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes in this transaction that `group` handles these events, and answers those that are new: [`record`] of
/// [`Fate::Handled`] for many that are no replays. A concurrent transaction with one of them waits here.
///
/// # Errors
/// When the database fails.
pub async fn record_all(
    tx: &mut Tx,
    group: &str,
    mut events: Vec<EventId>,
    now: Timestamp,
) -> Result<HashSet<EventId>, sqlx::Error> {
    // Two transactions with the same events must not wait for each other.
    events.sort_unstable();
    events.dedup();
    let mut new = HashSet::with_capacity(events.len());
    for events in rows::chunks(&events, MOST_EVENTS) {
        let mut sql = String::from("INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) VALUES ");
        for row in 0..events.len() {
            let comma = if row == 0 { "" } else { ", " };
            write!(sql, "{comma}($1, ${}, $2, NULL)", row + 3).expect("writing to a string cannot fail");
        }
        sql.push_str(" ON CONFLICT (consumer_group, event_id) DO NOTHING RETURNING event_id");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(group).bind(now.as_microsecond());
        let query = events.iter().fold(query, |query, event| query.bind(event.to_string()));
        for row in query.fetch_all(tx.conn()).await? {
            let event: String = row.try_get(0)?;
            new.insert(event.parse().map_err(|error| undecodable("event_id", error))?);
        }
    }
    Ok(new)
}

/// Forgets these events of `group`, so that they are handled when they are read again, a few at a time so that no handler
/// waits long. Returns how many it had remembered.
///
/// # Errors
/// When the database fails; what was forgotten so far stays forgotten.
pub async fn forget(
    database: &Database,
    group: &str,
    events: impl IntoIterator<Item = &EventId>,
) -> Result<u64, sqlx::Error> {
    let mut events = events.into_iter().peekable();
    let mut forgotten = 0;
    while events.peek().is_some() {
        let mut tx = database.begin().await?;
        for event in events.by_ref().take(BATCH) {
            let done = sqlx::query("DELETE FROM inbox WHERE consumer_group = $1 AND event_id = $2")
                .bind(group)
                .bind(event.to_string())
                .execute(tx.conn())
                .await?;
            forgotten += done.rows_affected();
        }
        tx.commit().await?;
    }
    Ok(forgotten)
}

/// For how long an event is remembered whose topic keeps records for `retention`: twice that, because retention is the
/// least a broker keeps and not the most.
pub fn kept_for(retention: Duration) -> SignedDuration {
    SignedDuration::try_from(retention.saturating_mul(2)).unwrap_or(SignedDuration::MAX)
}

/// Forgets events that were handled before `before`, a few at a time so that no handler waits long. Returns how many.
///
/// # Errors
/// When the database fails; what was removed so far stays removed.
pub async fn clean(database: &Database, before: Timestamp) -> Result<u64, sqlx::Error> {
    let mut removed = 0;
    loop {
        let mut tx = database.begin().await?;
        let done = sqlx::query(
            "DELETE FROM inbox WHERE (consumer_group, event_id) IN \
             (SELECT consumer_group, event_id FROM inbox WHERE handled_at < $1 LIMIT $2)",
        )
        .bind(before.as_microsecond())
        .bind(BATCH as i64)
        .execute(tx.conn())
        .await?
        .rows_affected();
        tx.commit().await?;
        removed += done;
        if done < BATCH as u64 {
            return Ok(removed);
        }
    }
}
