//! The relay's statements.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    OnPublished, Published,
    lease::Lease,
    row::{COLUMNS, StoredRow},
};
use crate::{Database, Origin, Tx, error::Chain};

/// How many rows are read or moved at a time.
pub(super) const BATCH: usize = 250;

/// A row that Kafka has taken, or never will.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Published(StoredRow, Origin),
    Poison(StoredRow, String),
}

impl Outcome {
    pub fn row(&self) -> &StoredRow {
        let (Outcome::Published(row, _) | Outcome::Poison(row, _)) = self;
        row
    }
}

/// The oldest rows, in sequence, without those in hand.
pub(super) struct Batch {
    pub rows: Vec<StoredRow>,
    pub unreadable: Vec<Unreadable>,
}

/// A row that no relay can make a record of: something else than the runtime wrote or changed it.
pub(super) struct Unreadable {
    pub seq: i64,
    pub reason: String,
}

/// How much waits to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Rows that are due.
    pub rows: u64,
    /// For how long the oldest of them has been due.
    pub oldest_age: Option<SignedDuration>,
    /// Rows whose time has not come.
    pub delayed: u64,
    /// Rows that were set aside.
    pub set_aside: u64,
}

/// How much waits in `database` at the moment.
///
/// # Errors
/// When the database fails.
pub async fn depth(database: &Database, now: Timestamp) -> Result<Depth, sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM outbox), (SELECT MIN(created_at) FROM outbox), \
                (SELECT COUNT(*) FROM outbox_delayed), (SELECT COUNT(*) FROM outbox_poison)",
    )
    .fetch_one(database.pool())
    .await?;
    let count = |index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
    let oldest: Option<i64> = row.try_get(1)?;
    Ok(Depth {
        rows: count(0)?,
        oldest_age: oldest.map(|created| SignedDuration::from_micros((now.as_microsecond() - created).max(0))),
        delayed: count(2)?,
        set_aside: count(3)?,
    })
}

/// Reads a batch.
///
/// Always the oldest: a transaction that took its sequence numbers early may commit late, so "everything after the last
/// one I saw" would miss rows.
pub(super) async fn read(database: &Database, in_hand: &[i64]) -> Result<Batch, sqlx::Error> {
    let sql = if in_hand.is_empty() {
        format!("SELECT {COLUMNS} FROM outbox ORDER BY seq LIMIT {BATCH}")
    } else {
        format!("SELECT {COLUMNS} FROM outbox WHERE seq NOT IN ({}) ORDER BY seq LIMIT {BATCH}", list(in_hand))
    };
    let stored = sqlx::query(AssertSqlSafe(sql)).persistent(in_hand.is_empty()).fetch_all(database.pool()).await?;
    let mut batch = Batch { rows: Vec::with_capacity(stored.len()), unreadable: Vec::new() };
    for row in &stored {
        let seq = row.try_get(0)?;
        match StoredRow::from_row(row) {
            Ok(row) => batch.rows.push(row),
            // Only this row: an error here would stop every other event of the service.
            Err(error) => {
                batch.unreadable.push(Unreadable { seq, reason: format!("the row cannot be read: {}", Chain(&error)) });
            }
        }
    }
    Ok(batch)
}

/// When the next delayed row is due.
pub(super) async fn next_due(database: &Database) -> Result<Option<Timestamp>, sqlx::Error> {
    let due: Option<i64> =
        sqlx::query_scalar("SELECT MIN(not_before) FROM outbox_delayed").fetch_one(database.pool()).await?;
    Ok(due.and_then(|due| Timestamp::from_microsecond(due).ok()))
}

/// Moves rows whose time has come to the end of the outbox. False when the lease is lost.
pub(super) async fn move_due(database: &Database, lease: &Lease, now: Timestamp) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !lease.check(&mut tx, now).await? {
        return Ok(false);
    }
    // Read first: a row that is committed between two statements must not be deleted by one and missed by the other.
    let due: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT seq FROM outbox_delayed WHERE not_before <= $1 ORDER BY not_before, seq LIMIT {BATCH}"
    )))
    .bind(now.as_microsecond())
    .fetch_all(tx.conn())
    .await?;
    if due.is_empty() {
        tx.rollback().await?;
        return Ok(true);
    }
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, created_at) \
         SELECT event_id, topic, record_key, headers, value, $1 FROM outbox_delayed \
         WHERE seq IN ({}) ORDER BY not_before, seq",
        list(&due)
    )))
    .persistent(false)
    .bind(now.as_microsecond())
    .execute(tx.conn())
    .await?;
    delete(&mut tx, "outbox_delayed", &due).await?;
    tx.commit().await?;
    Ok(true)
}

/// Removes rows that are done, and notes where they stand, if the lease is still held; false when it is not.
pub(super) async fn settle(
    database: &Database,
    lease: &Lease,
    on_published: Option<&dyn OnPublished>,
    done: &[Outcome],
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !lease.check(&mut tx, now).await? {
        return Ok(false);
    }
    let mut published = Vec::new();
    for outcome in done {
        match outcome {
            Outcome::Published(row, origin) => {
                published.push(Published { event_id: row.event_id, origin: origin.clone() });
            }
            Outcome::Poison(row, reason) => set_aside(&mut tx, row.seq, reason, now).await?,
        }
    }
    if let Some(on_published) = on_published
        && !published.is_empty()
    {
        on_published.published(&mut tx, &published).await?;
    }
    let seqs: Vec<i64> = done.iter().map(|outcome| outcome.row().seq).collect();
    delete(&mut tx, "outbox", &seqs).await?;
    tx.commit().await?;
    Ok(true)
}

/// Sets rows aside, if the lease is still held; false when it is not.
pub(super) async fn set_unreadable_aside(
    database: &Database,
    lease: &Lease,
    unreadable: &[Unreadable],
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !lease.check(&mut tx, now).await? {
        return Ok(false);
    }
    for Unreadable { seq, reason } in unreadable {
        set_aside(&mut tx, *seq, reason, now).await?;
    }
    let seqs: Vec<i64> = unreadable.iter().map(|row| row.seq).collect();
    delete(&mut tx, "outbox", &seqs).await?;
    tx.commit().await?;
    Ok(true)
}

async fn set_aside(tx: &mut Tx, seq: i64, reason: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outbox_poison \
             (seq, event_id, topic, record_key, headers, value, created_at, reason, set_aside_at) \
         SELECT seq, event_id, topic, record_key, headers, value, created_at, $1, $2 FROM outbox WHERE seq = $3",
    )
    .bind(reason)
    .bind(now.as_microsecond())
    .bind(seq)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn delete(tx: &mut Tx, table: &str, seqs: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE seq IN ({})", list(seqs))))
        .persistent(false)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Numbers only, so they may stand in the statement itself; both databases then take any number of them.
fn list(numbers: &[i64]) -> String {
    let mut text = String::with_capacity(numbers.len() * 8);
    for (index, number) in numbers.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{number}").expect("writing to a string cannot fail");
    }
    text
}
