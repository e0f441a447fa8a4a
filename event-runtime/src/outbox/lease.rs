//! Who publishes: of all relays on a database, one holds the lease.
//!
//! The lease saves work, it does not keep the order: every relay publishes the rows of a key in sequence, beginning with
//! the oldest that is left, so two relays at once would repeat rows but never publish one first out of order. What the
//! fencing number guards is the removal of rows and what is noted with it: a relay that lost its lease removes nothing.

use jiff::{SignedDuration, Timestamp};

use crate::{Database, Tx};

/// A lease as its holder knows it.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    owner: String,
    /// Goes up with every change of holder.
    fence: i64,
}

const NAME: &str = "relay";

/// Long enough that a busy holder renews in time, short enough that a dead one is soon replaced.
pub(super) const DURATION: SignedDuration = SignedDuration::from_secs(5);

impl Lease {
    /// Takes the lease for `owner` if nobody holds it.
    pub async fn acquire(database: &Database, owner: &str, now: Timestamp) -> Result<Option<Lease>, sqlx::Error> {
        // Looking first costs a waiting relay no write.
        let expires_at: Option<i64> = sqlx::query_scalar("SELECT expires_at FROM outbox_lease WHERE name = $1")
            .bind(NAME)
            .fetch_optional(database.pool())
            .await?;
        if expires_at.is_some_and(|expires_at| expires_at > now.as_microsecond()) {
            return Ok(None);
        }
        let mut tx = database.begin().await?;
        let fence: Option<i64> = sqlx::query_scalar(
            "INSERT INTO outbox_lease (name, owner, fence, expires_at) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (name) DO UPDATE SET \
                 owner = excluded.owner, fence = outbox_lease.fence + 1, expires_at = excluded.expires_at \
             WHERE outbox_lease.expires_at <= $4 RETURNING fence",
        )
        .bind(NAME)
        .bind(owner)
        .bind((now + DURATION).as_microsecond())
        .bind(now.as_microsecond())
        .fetch_optional(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(fence.map(|fence| Lease { owner: owner.to_owned(), fence }))
    }

    /// Whether this lease is still held. Extends it, and locks it until the transaction ends: nobody can take it over
    /// between this check and the commit.
    pub async fn check(&self, tx: &mut Tx, now: Timestamp) -> Result<bool, sqlx::Error> {
        self.set_expiry(tx, now + DURATION).await
    }

    /// Extends the lease; false when it is lost.
    pub async fn renew(&self, database: &Database, now: Timestamp) -> Result<bool, sqlx::Error> {
        let mut tx = database.begin().await?;
        let held = self.check(&mut tx, now).await?;
        tx.commit().await?;
        Ok(held)
    }

    /// Lets the next relay begin at once.
    pub async fn release(self, database: &Database) -> Result<(), sqlx::Error> {
        let mut tx = database.begin().await?;
        self.set_expiry(&mut tx, Timestamp::UNIX_EPOCH).await?;
        tx.commit().await
    }

    async fn set_expiry(&self, tx: &mut Tx, expires_at: Timestamp) -> Result<bool, sqlx::Error> {
        let done = sqlx::query("UPDATE outbox_lease SET expires_at = $1 WHERE name = $2 AND owner = $3 AND fence = $4")
            .bind(expires_at.as_microsecond())
            .bind(NAME)
            .bind(&self.owner)
            .bind(self.fence)
            .execute(tx.conn())
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn held(lease: &Lease, database: &Database, now: Timestamp) -> bool {
        lease.renew(database, now).await.unwrap()
    }

    #[tokio::test]
    async fn one_holds_the_lease_until_it_expires_or_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let acquire = async |owner: &str, now| Lease::acquire(&database, owner, now).await.unwrap();

        let first = acquire("first", now).await.unwrap();
        assert!(acquire("second", now + DURATION - SignedDuration::from_micros(1)).await.is_none());
        assert!(held(&first, &database, now + SignedDuration::from_secs(3)).await, "renewed in time");
        assert!(acquire("second", now + DURATION).await.is_none(), "it was renewed");

        // Expired, and nobody else wants it: it is still the first one's.
        let late = now + DURATION * 3;
        assert!(held(&first, &database, late).await);
        let second = acquire("second", late + DURATION).await.unwrap();
        assert!(!held(&first, &database, late + DURATION).await, "two hold it");
        first.clone().release(&database).await.unwrap();
        assert!(held(&second, &database, late + DURATION).await, "given back by one that did not hold it");

        // The same relay again: it must not take its former lease for this one.
        second.release(&database).await.unwrap();
        let again = acquire("first", late + DURATION).await.unwrap();
        assert!(again.fence > first.fence);
        assert!(!held(&first, &database, late + DURATION).await);
        assert!(held(&again, &database, late + DURATION).await);
    }
}
