//! The relay's statements.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{
    OnPublished, Published,
    bucket::{Bucket, Buckets, Fences},
    lease::Holder,
    row::{COLUMNS, StoredRow, age, bucket},
};
use crate::{Database, Tx, database::columns::bytes_of, error::Chain};

/// How many rows are read or moved at a time.
pub(super) const BATCH: usize = 250;

/// A row that is done with.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub seq: i64,
    pub bucket: Bucket,
    /// The number under which its bucket was held when it was read.
    pub fence: i64,
    pub fate: Fate,
}

/// What became of a row.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// Kafka has taken it.
    Published(Published),
    /// Kafka never will, for this reason.
    Poison(String),
}

/// The oldest rows, in sequence, without those in hand.
pub(super) struct Batch {
    pub rows: Vec<StoredRow>,
    /// Rows that no relay can make a record of: something else than the runtime wrote or changed them.
    pub unreadable: Vec<Done>,
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
    // The oldest by its number, for which an index serves: the least time means to read a backlog whole.
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM outbox), (SELECT created_at FROM outbox ORDER BY seq LIMIT 1), \
                (SELECT COUNT(*) FROM outbox_delayed), (SELECT COUNT(*) FROM outbox_poison)",
    )
    .fetch_one(database.pool())
    .await?;
    let count = |index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
    let oldest: Option<i64> = row.try_get(1)?;
    Ok(Depth {
        rows: count(0)?,
        oldest_age: oldest.map(|created_at| age(created_at, now)),
        delayed: count(2)?,
        set_aside: count(3)?,
    })
}

/// Reads a batch of the buckets in `fences`.
///
/// Always the oldest: a transaction that took its sequence numbers early may commit late, so "everything after the last
/// one I saw" would miss rows.
pub(super) async fn read(
    database: &Database,
    fences: &Fences,
    in_hand: &BTreeMap<Bucket, Vec<i64>>,
) -> Result<Batch, sqlx::Error> {
    let oldest = oldest(fences, in_hand);
    let sql = format!("SELECT {COLUMNS} FROM outbox WHERE seq IN ({oldest}) ORDER BY seq");
    let query = sqlx::query(AssertSqlSafe(sql)).persistent(in_hand.is_empty());
    let mut batch = Batch { rows: Vec::new(), unreadable: Vec::new() };
    match values(query.fetch_all(database.pool()).await)? {
        Ok(stored) => stored.iter().try_for_each(|row| batch.add(row, fences))?,
        // A value that is not text, say, which fails the whole statement.
        Err(_) => read_singly(database, &oldest, fences, &mut batch).await?,
    }
    Ok(batch)
}

impl Batch {
    /// There may be more then.
    pub fn is_full(&self) -> bool {
        self.rows.len() + self.unreadable.len() == BATCH
    }

    fn add(&mut self, row: &AnyRow, fences: &Fences) -> Result<(), sqlx::Error> {
        match StoredRow::from_row(row, fences) {
            Ok(row) => self.rows.push(row),
            // Only this row: an error here would stop every other event of the service.
            Err(error) => self.add_unreadable(row.try_get(0)?, bucket(row)?, fences, &error),
        }
        Ok(())
    }

    fn add_unreadable(&mut self, seq: i64, bucket: Bucket, fences: &Fences, error: &sqlx::Error) {
        let fence = fences.get(&bucket).copied().unwrap_or_default();
        let reason = format!("the row cannot be read: {}", Chain(error));
        self.unreadable.push(Done { seq, bucket, fence, fate: Fate::Poison(reason) });
    }
}

async fn read_singly(database: &Database, oldest: &str, fences: &Fences, batch: &mut Batch) -> Result<(), sqlx::Error> {
    // Numbers only, so this can be read.
    let sql = format!("SELECT seq, bucket FROM outbox WHERE seq IN ({oldest}) ORDER BY seq");
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_all(database.pool()).await?;
    for row in rows {
        let seq: i64 = row.try_get(0)?;
        let one = sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM outbox WHERE seq = $1")));
        match values(one.bind(seq).fetch_optional(database.pool()).await)? {
            Ok(Some(row)) => batch.add(&row, fences)?,
            // Another relay has published it meanwhile.
            Ok(None) => {}
            Err(error) => batch.add_unreadable(seq, bucket(&row)?, fences, &error),
        }
    }
    Ok(())
}

/// What was read, or why a value could not be. That the database could not be asked is another matter: nothing is wrong with
/// the rows then.
fn values<T>(read: Result<T, sqlx::Error>) -> Result<Result<T, sqlx::Error>, sqlx::Error> {
    match read {
        Err(error @ (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })) => Ok(Err(error)),
        read => read.map(Ok),
    }
}

/// The oldest row without a bucket. Ordered as the index by bucket is: PostgreSQL would go through the whole backlog by the
/// primary key for MIN(seq), in the belief that such rows are common.
const UNSORTED: &str = "(SELECT seq FROM outbox WHERE bucket IS NULL ORDER BY bucket, seq LIMIT 1)";

/// Selects the sequence numbers of the oldest rows: from each bucket by its index, and of those the oldest again. Nothing that
/// came after a row without a bucket: that one may be of the same key.
fn oldest(fences: &Fences, in_hand: &BTreeMap<Bucket, Vec<i64>>) -> String {
    let not_in = |seqs: &[i64]| match seqs {
        [] => String::new(),
        seqs => format!("AND seq NOT IN ({}) ", list(seqs)),
    };
    if fences.len() == Buckets::all().len() {
        // One relay has them all, as a rule: SQLite takes 600 µs for the other statement over an empty table, and 8 for this.
        let in_hand: Vec<i64> = in_hand.values().flatten().copied().collect();
        let (last, in_hand) = (i64::MAX, not_in(&in_hand));
        return format!(
            "SELECT seq FROM outbox WHERE seq < COALESCE({UNSORTED}, {last}) {in_hand}ORDER BY seq LIMIT {BATCH}"
        );
    }
    let mut sql = format!("WITH unsorted AS (SELECT COALESCE({UNSORTED}, {}) AS first) SELECT seq FROM (", i64::MAX);
    for (index, bucket) in fences.keys().enumerate() {
        let union = if index == 0 { "" } else { " UNION ALL " };
        let number = bucket.number();
        let in_hand = not_in(in_hand.get(bucket).map_or(&[], Vec::as_slice));
        write!(
            sql,
            "{union}SELECT seq FROM (SELECT seq FROM outbox WHERE bucket = {number} \
             AND seq < (SELECT first FROM unsorted) {in_hand}ORDER BY seq LIMIT {BATCH}) AS bucket_{number}"
        )
        .expect("writing to a string cannot fail");
    }
    write!(sql, ") AS oldest ORDER BY seq LIMIT {BATCH}").expect("writing to a string cannot fail");
    sql
}

/// What one relay does for all of them.
pub(super) struct Duties {
    /// When the next delayed row is due.
    pub next_due: Option<Timestamp>,
    /// There are rows without a bucket.
    pub unsorted: bool,
}

pub(super) async fn duties(database: &Database) -> Result<Duties, sqlx::Error> {
    let sql = format!("SELECT (SELECT MIN(not_before) FROM outbox_delayed), {UNSORTED}");
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(database.pool()).await?;
    let due: Option<i64> = row.try_get(0)?;
    let next_due = due.and_then(|due| Timestamp::from_microsecond(due).ok());
    Ok(Duties { next_due, unsorted: row.try_get::<Option<i64>, _>(1)?.is_some() })
}

/// Moves rows whose time has come to the end of the outbox. False when the first bucket is lost.
pub(super) async fn move_due(
    database: &Database,
    holder: &Holder,
    fence: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !holder.has_first(&mut tx, fence, now).await? {
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
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) \
         SELECT event_id, topic, record_key, headers, value, bucket, $1 FROM outbox_delayed \
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

/// Gives rows without a bucket theirs, the oldest first. False when the first bucket is lost.
pub(super) async fn sort(
    database: &Database,
    holder: &Holder,
    fence: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    if !holder.has_first(&mut tx, fence, now).await? {
        return Ok(false);
    }
    // As bytes, because a key that is no text must not keep the others from being sorted.
    let key = bytes_of("record_key", database.dialect());
    let sql = format!("SELECT seq, {key} FROM outbox WHERE bucket IS NULL ORDER BY seq LIMIT {BATCH}");
    let mut sorted: BTreeMap<Bucket, Vec<i64>> = BTreeMap::new();
    for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(tx.conn()).await? {
        let key: Vec<u8> = row.try_get(1)?;
        sorted.entry(Bucket::of(&key)).or_default().push(row.try_get(0)?);
    }
    for (bucket, seqs) in sorted {
        sqlx::query(AssertSqlSafe(format!("UPDATE outbox SET bucket = $1 WHERE seq IN ({})", list(&seqs))))
            .persistent(false)
            .bind(bucket.number())
            .execute(tx.conn())
            .await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Removes rows that are done and notes where they stand, as far as their buckets are still held. False when one is not.
pub(super) async fn settle(
    database: &Database,
    holder: &Holder,
    on_published: Option<&dyn OnPublished>,
    done: &[Done],
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut tx = database.begin().await?;
    let buckets: Buckets = done.iter().map(|row| row.bucket).collect();
    let fences = holder.check(&mut tx, buckets, now).await?;
    let ours = |row: &&Done| fences.get(&row.bucket) == Some(&row.fence);
    let (mut seqs, mut published) = (Vec::with_capacity(done.len()), Vec::new());
    for row in done.iter().filter(ours) {
        seqs.push(row.seq);
        match &row.fate {
            Fate::Published(place) => published.push(place.clone()),
            Fate::Poison(reason) => set_aside(&mut tx, row.seq, reason, now).await?,
        }
    }
    if let Some(on_published) = on_published
        && !published.is_empty()
    {
        on_published.published(&mut tx, &published).await?;
    }
    if !seqs.is_empty() {
        delete(&mut tx, "outbox", &seqs).await?;
    }
    tx.commit().await?;
    Ok(seqs.len() == done.len())
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

#[cfg(test)]
mod tests;
