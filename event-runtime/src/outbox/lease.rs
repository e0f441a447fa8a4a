//! Who publishes which bucket: a relay holds it by a row that says who, until when, and how often the holder has changed.
//!
//! A relay gives a sign of life in `outbox_relay` and extends its leases together. From the signs of life every relay
//! reckons the same share for each of them; who has more gives buckets back once nothing of them is on its way, who has
//! less takes those that are free. A relay that dies leaves leases that end by themselves.
//!
//! The leases save work, they do not keep the order: every relay publishes the rows of a key in sequence, beginning with the
//! oldest that is left, so two relays at once would repeat rows but never publish one first out of order. What the fencing
//! numbers guard is the removal of rows and what is noted with it: a relay that lost a bucket removes nothing of it.
//!
//! Times are those of the instances' own clocks: one that is seconds ahead of the others takes leases that are still in use,
//! which costs repetitions.

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow, query::Query};

use super::bucket::{BUCKETS, Bucket, Buckets, Fences};
use crate::{Database, Tx, database::Dialect};

/// Long enough that a busy holder extends in time, short enough that a dead one is soon replaced.
pub(super) const DURATION: SignedDuration = SignedDuration::from_secs(5);

/// One relay, as the leases know it.
pub(super) struct Holder {
    /// Tells this relay from all others, also from an earlier one of the same process.
    name: String,
}

/// What a relay learns when it extends its leases.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// What it holds.
    pub held: Fences,
    /// What it has to give back, because others have less.
    pub surplus: Buckets,
    /// What it may take.
    pub free: Buckets,
}

impl Holder {
    pub fn new(name: String) -> Holder {
        Holder { name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Extends all leases of this relay.
    pub async fn extend(&self, database: &Database, now: Timestamp) -> Result<Standing, sqlx::Error> {
        let mut tx = database.begin().await?;
        sqlx::query(
            "INSERT INTO outbox_relay (name, expires_at) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at",
        )
        .bind(&self.name)
        .bind((now + DURATION).as_microsecond())
        .execute(tx.conn())
        .await?;
        let query = sqlx::query("UPDATE outbox_bucket SET expires_at = $1 WHERE owner = $2 RETURNING bucket, fence");
        let held = fences(query.bind((now + DURATION).as_microsecond()).bind(&self.name), &mut tx).await?;
        let relays = relays(&mut tx, now).await?;
        let free = sqlx::query_scalar("SELECT bucket FROM outbox_bucket WHERE expires_at <= $1")
            .bind(now.as_microsecond())
            .fetch_all(tx.conn())
            .await?;
        tx.commit().await?;
        let free = free.into_iter().filter_map(Bucket::numbered).collect();
        Ok(standing(&self.name, held, &relays, free))
    }

    /// Takes those of `wanted` that are free still.
    pub async fn take(&self, database: &Database, wanted: Buckets, now: Timestamp) -> Result<Fences, sqlx::Error> {
        // Whoever waited here for another relay's rows while that one waits for its own would wait for ever.
        let unless_busy = match database.dialect() {
            Dialect::Postgres => "FOR UPDATE SKIP LOCKED",
            Dialect::Sqlite => "",
        };
        let sql = format!(
            "UPDATE outbox_bucket SET owner = $1, fence = fence + 1, expires_at = $2 WHERE bucket IN \
             (SELECT bucket FROM outbox_bucket WHERE bucket IN ({}) AND expires_at <= $3 {unless_busy}) \
             RETURNING bucket, fence",
            wanted.sql_list()
        );
        let mut tx = database.begin().await?;
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        let query = query.bind(&self.name).bind((now + DURATION).as_microsecond()).bind(now.as_microsecond());
        let taken = fences(query, &mut tx).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Which of `buckets` are still held, and under which fencing number. Extends them, and locks them until the
    /// transaction ends: nobody can take them over between this check and the commit.
    pub async fn check(&self, tx: &mut Tx, buckets: Buckets, now: Timestamp) -> Result<Fences, sqlx::Error> {
        let sql = format!(
            "UPDATE outbox_bucket SET expires_at = $1 WHERE owner = $2 AND bucket IN ({}) RETURNING bucket, fence",
            buckets.sql_list()
        );
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(buckets.len() <= 1);
        fences(query.bind((now + DURATION).as_microsecond()).bind(&self.name), tx).await
    }

    /// [`Holder::check`] for the first bucket, whose holder does what only one relay may do.
    pub async fn has_first(&self, tx: &mut Tx, fence: i64, now: Timestamp) -> Result<bool, sqlx::Error> {
        let held = self.check(tx, Bucket::FIRST.into(), now).await?;
        Ok(held.get(&Bucket::FIRST) == Some(&fence))
    }

    /// Lets other relays take `buckets` at once.
    pub async fn release(&self, database: &Database, buckets: Buckets) -> Result<(), sqlx::Error> {
        let mut tx = database.begin().await?;
        sqlx::query(AssertSqlSafe(format!(
            "UPDATE outbox_bucket SET owner = '', expires_at = 0 WHERE owner = $1 AND bucket IN ({})",
            buckets.sql_list()
        )))
        .persistent(false)
        .bind(&self.name)
        .execute(tx.conn())
        .await?;
        tx.commit().await
    }

    /// The end of this relay: the others share out what it had.
    pub async fn leave(&self, database: &Database) -> Result<(), sqlx::Error> {
        let mut tx = database.begin().await?;
        sqlx::query("UPDATE outbox_bucket SET owner = '', expires_at = 0 WHERE owner = $1")
            .bind(&self.name)
            .execute(tx.conn())
            .await?;
        sqlx::query("DELETE FROM outbox_relay WHERE name = $1").bind(&self.name).execute(tx.conn()).await?;
        tx.commit().await
    }
}

/// The names of the relays that live. Forgets those that have been dead for long.
async fn relays(tx: &mut Tx, now: Timestamp) -> Result<Vec<String>, sqlx::Error> {
    const LONG: SignedDuration = SignedDuration::from_mins(1);
    let forgotten = (now - LONG).as_microsecond();
    let known = sqlx::query("SELECT name, expires_at FROM outbox_relay ORDER BY name").fetch_all(tx.conn()).await?;
    let mut live = Vec::with_capacity(known.len());
    let mut long_dead = false;
    for relay in &known {
        let expires_at: i64 = relay.try_get(1)?;
        long_dead |= expires_at < forgotten;
        if expires_at > now.as_microsecond() {
            live.push(relay.try_get(0)?);
        }
    }
    if long_dead {
        sqlx::query("DELETE FROM outbox_relay WHERE expires_at < $1").bind(forgotten).execute(tx.conn()).await?;
    }
    Ok(live)
}

async fn fences(query: Query<'_, sqlx::Any, sqlx::any::AnyArguments>, tx: &mut Tx) -> Result<Fences, sqlx::Error> {
    let rows: Vec<AnyRow> = query.fetch_all(tx.conn()).await?;
    let mut fences = Fences::new();
    for row in rows {
        if let Some(bucket) = Bucket::numbered(row.try_get(0)?) {
            fences.insert(bucket, row.try_get(1)?);
        }
    }
    Ok(fences)
}

/// The shares differ by one at most, and the relays that come first by name (the oldest) have the larger ones.
fn standing(name: &str, held: Fences, relays: &[String], free: Buckets) -> Standing {
    let all = usize::from(BUCKETS);
    let rank = relays.iter().position(|relay| relay == name).unwrap_or(relays.len());
    // This relay has just given its sign of life, so there is one at least.
    let count = relays.len().max(1);
    let share = all / count + usize::from(rank < all % count);
    let surplus = held.keys().skip(share).copied().collect();
    let free = free.iter().take(share.saturating_sub(held.len())).collect();
    Standing { held, surplus, free }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1)
    }

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    struct Table {
        database: Database,
        _folder: tempfile::TempDir,
    }

    impl Table {
        async fn new() -> Table {
            let folder = tempfile::tempdir().unwrap();
            let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
            database.migrate(&[]).await.unwrap();
            Table { database, _folder: folder }
        }

        /// What a relay does once a second. Returns what it holds then.
        async fn look(&self, holder: &Holder, now: Timestamp) -> Fences {
            let Standing { mut held, surplus, free } = holder.extend(&self.database, now).await.unwrap();
            held.extend(holder.take(&self.database, free, now).await.unwrap());
            holder.release(&self.database, surplus).await.unwrap();
            held.retain(|bucket, _| !surplus.contains(*bucket));
            held
        }

        async fn check(&self, holder: &Holder, now: Timestamp) -> Fences {
            let mut tx = self.database.begin().await.unwrap();
            let held = holder.check(&mut tx, (0..16).filter_map(Bucket::numbered).collect(), now).await.unwrap();
            tx.commit().await.unwrap();
            held
        }
    }

    #[tokio::test]
    async fn a_bucket_is_held_until_its_lease_ends_or_it_is_given_back() {
        let table = Table::new().await;
        let (first, second) = (Holder::new("1".to_owned()), Holder::new("2".to_owned()));
        let before = table.look(&first, now()).await;
        assert_eq!(before.len(), 16);
        let end = now() + seconds(3) + DURATION;
        assert_eq!(table.check(&first, now() + seconds(3)).await, before, "extended in time");
        let all = (0..16).filter_map(Bucket::numbered).collect();
        let just_before = end - SignedDuration::from_micros(1);
        assert!(second.take(&table.database, all, just_before).await.unwrap().is_empty(), "two hold a bucket");

        // Ended, and nobody else wants them: they are still the first one's.
        let late = end + DURATION;
        assert_eq!(table.check(&first, late).await, before);
        let taken = second.take(&table.database, all, late + DURATION).await.unwrap();
        assert!(taken.len() == 16 && taken.iter().all(|(bucket, fence)| *fence > before[bucket]));
        assert!(table.check(&first, late + DURATION).await.is_empty(), "two hold a bucket");
        first.release(&table.database, all).await.unwrap();
        assert_eq!(table.check(&second, late + DURATION).await, taken, "given back by one that did not hold it");

        // The same relay again: it must not take its former leases for these.
        second.release(&table.database, all).await.unwrap();
        let again = first.take(&table.database, all, late + DURATION).await.unwrap();
        assert!(again.iter().all(|(bucket, fence)| *fence > taken[bucket]));
    }

    #[tokio::test]
    async fn a_lease_lasts_as_long_after_it_was_taken_as_after_it_was_extended() {
        let table = Table::new().await;
        let (first, second) = (Holder::new("1".to_owned()), Holder::new("2".to_owned()));
        let all = Buckets::all();
        for began in [now(), now() + seconds(1)] {
            assert_eq!(table.look(&first, began).await.len(), 16);
            let just_before = began + DURATION - SignedDuration::from_micros(1);
            assert!(second.take(&table.database, all, just_before).await.unwrap().is_empty(), "two hold a bucket");
        }
        let end = now() + seconds(1) + DURATION;
        assert_eq!(second.take(&table.database, all, end).await.unwrap().len(), 16);
    }

    #[tokio::test]
    async fn the_first_bucket_is_held_under_one_fence_by_one_relay() {
        let table = Table::new().await;
        let (first, second) = (Holder::new("1".to_owned()), Holder::new("2".to_owned()));
        assert_eq!(first.name(), "1");
        let fence = table.look(&first, now()).await[&Bucket::FIRST];
        let mut tx = table.database.begin().await.unwrap();
        assert!(first.has_first(&mut tx, fence, now()).await.unwrap());
        assert!(!first.has_first(&mut tx, fence - 1, now()).await.unwrap(), "held before, and lost between");
        assert!(!second.has_first(&mut tx, fence, now()).await.unwrap());
    }

    /// One, then three, then as many as there are buckets and more; then they die.
    #[tokio::test]
    async fn every_relay_has_its_share_as_they_come_and_go() {
        let table = Table::new().await;
        let holders: Vec<Holder> = (0..18).map(|number| Holder::new(format!("{number:02}"))).collect();
        let mut clock = now();
        for (live, shares) in
            [(0..1, vec![16]), (0..3, vec![6, 5, 5]), (0..18, [vec![1; 16], vec![0; 2]].concat()), (16..18, vec![8, 8])]
        {
            clock += DURATION;
            let mut counts = Vec::new();
            // Who has too much gives back, then who has too little takes.
            for _ in 0..2 {
                counts.clear();
                for holder in &holders[live.clone()] {
                    counts.push(table.look(holder, clock).await.len());
                }
            }
            assert_eq!(counts, shares, "relays {live:?}");
        }
        let known: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox_relay").fetch_one(table.database.pool()).await.unwrap();
        assert_eq!(known, 18, "the dead are remembered for a while");
        table.look(&holders[16], clock + seconds(120)).await;
        let known: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox_relay").fetch_one(table.database.pool()).await.unwrap();
        assert_eq!(known, 1, "and then no longer");
        holders[16].leave(&table.database).await.unwrap();
        assert_eq!(table.look(&holders[17], clock + seconds(120)).await.len(), 16, "what one leaves the other takes");
    }
}
