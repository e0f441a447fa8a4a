//! Which consumer has which partition, durably: so that whoever has it next knows whether its owner handed it over or
//! died, and, of a record that was attempted alone, that it was the cause. See [`Legacy`].
//!
//! A row is written before the first record of an assignment is handled, and removed before the partition is given back.
//! Nobody removes or changes another owner's row but by taking the partition over.

use std::{collections::HashMap, fmt::Write as _};

use jiff::Timestamp;
use sqlx::Row as _;

use crate::{
    Database,
    scheduler::{Legacy, Partition},
};

/// The rows of one member of a consumer group.
pub(crate) struct Assignments {
    pub(crate) database: Database,
    pub(crate) group: &'static str,
    /// Different for every member there ever was.
    pub(crate) owner: String,
}

impl Assignments {
    /// Notes that these partitions are ours. How each was left, in their order.
    ///
    /// One that is still alive may be taken for dead, as when a partition is lost: its records are then handled with more
    /// care than they need.
    pub(crate) async fn take(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Legacy>, sqlx::Error> {
        let mut tx = self.database.begin().await?;
        let mut legacies: HashMap<&Partition, Legacy> =
            partitions.iter().map(|partition| (partition, Legacy::default())).collect();
        let left = sqlx::query(
            "SELECT topic, partition, attempting FROM consumer_assignments WHERE consumer_group = $1 AND owner <> $2",
        )
        .bind(self.group)
        .bind(&self.owner)
        .fetch_all(tx.conn())
        .await?;
        for row in &left {
            let partition = partition(row)?;
            let Some(legacy) = legacies.get_mut(&partition) else { continue };
            legacy.crashed = true;
            if let Some(offset) = row.try_get::<Option<i64>, _>("attempting")? {
                sqlx::query(
                    "INSERT INTO consumer_crashes \
                         (consumer_group, topic, partition, record_offset, crashes, crashed_at) \
                     VALUES ($1, $2, $3, $4, 1, $5) \
                     ON CONFLICT (consumer_group, topic, partition, record_offset) DO UPDATE \
                     SET crashes = consumer_crashes.crashes + 1, crashed_at = excluded.crashed_at",
                )
                .bind(self.group)
                .bind(&*partition.topic)
                .bind(i64::from(partition.number))
                .bind(offset)
                .bind(now.as_microsecond())
                .execute(tx.conn())
                .await?;
            }
        }
        let upsert = format!(
            "INSERT INTO consumer_assignments (consumer_group, owner, assigned_at, topic, partition) VALUES {} \
             ON CONFLICT (consumer_group, topic, partition) DO UPDATE \
             SET owner = excluded.owner, assigned_at = excluded.assigned_at, attempting = NULL",
            pairs("$1, $2, $3, ", 4, partitions.len())
        );
        let upsert =
            sqlx::query(sqlx::AssertSqlSafe(upsert)).bind(self.group).bind(&self.owner).bind(now.as_microsecond());
        let upsert = partitions.iter().fold(upsert, |upsert, partition| {
            upsert.bind(partition.topic.to_string()).bind(i64::from(partition.number))
        });
        upsert.execute(tx.conn()).await?;
        let crashes = sqlx::query(
            "SELECT topic, partition, record_offset, crashes FROM consumer_crashes WHERE consumer_group = $1",
        )
        .bind(self.group)
        .fetch_all(tx.conn())
        .await?;
        for row in &crashes {
            if let Some(legacy) = legacies.get_mut(&partition(row)?) {
                let crashes = u32::try_from(row.try_get::<i64, _>("crashes")?).unwrap_or(u32::MAX);
                legacy.crashes.insert(row.try_get("record_offset")?, crashes);
            }
        }
        tx.commit().await?;
        Ok(partitions.iter().map(|partition| legacies.get(partition).cloned().unwrap_or_default()).collect())
    }

    /// Notes that these partitions are ours no longer, with nothing of them in hand.
    pub(crate) async fn give_back(&self, partitions: &[Partition]) -> Result<(), sqlx::Error> {
        let delete = format!(
            "DELETE FROM consumer_assignments WHERE consumer_group = $1 AND owner = $2 AND (topic, partition) IN (VALUES {})",
            pairs("", 3, partitions.len())
        );
        let delete = sqlx::query(sqlx::AssertSqlSafe(delete)).bind(self.group).bind(&self.owner);
        let delete = partitions.iter().fold(delete, |delete, partition| {
            delete.bind(partition.topic.to_string()).bind(i64::from(partition.number))
        });
        let mut tx = self.database.begin().await?;
        delete.execute(tx.conn()).await?;
        tx.commit().await
    }

    /// The same for all that are ours.
    pub(crate) async fn give_back_all(&self) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin().await?;
        sqlx::query("DELETE FROM consumer_assignments WHERE consumer_group = $1 AND owner = $2")
            .bind(self.group)
            .bind(&self.owner)
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }

    /// Notes that the record at `offset` is attempted alone: should this process end, that is why.
    pub(crate) async fn begin_alone(&self, partition: &Partition, offset: i64) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin().await?;
        self.set_attempting(&mut tx, partition, Some(offset)).await?;
        tx.commit().await
    }

    /// Notes that the process has outlived the attempt; with `done`, that the record will not be attempted again.
    pub(crate) async fn end_alone(&self, partition: &Partition, offset: i64, done: bool) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin().await?;
        self.set_attempting(&mut tx, partition, None).await?;
        if done {
            sqlx::query(
                "DELETE FROM consumer_crashes \
                 WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset = $4",
            )
            .bind(self.group)
            .bind(&*partition.topic)
            .bind(i64::from(partition.number))
            .bind(offset)
            .execute(tx.conn())
            .await?;
        }
        tx.commit().await
    }

    async fn set_attempting(
        &self,
        tx: &mut crate::Tx,
        partition: &Partition,
        offset: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        // Where somebody else has taken the partition over meanwhile, this changes nothing.
        sqlx::query(
            "UPDATE consumer_assignments SET attempting = $1 \
             WHERE consumer_group = $2 AND topic = $3 AND partition = $4 AND owner = $5",
        )
        .bind(offset)
        .bind(self.group)
        .bind(&*partition.topic)
        .bind(i64::from(partition.number))
        .bind(&self.owner)
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}

/// Forgets crashes from before `before`: their records are gone from their topics. Returns how many.
///
/// # Errors
/// When the database fails.
pub(crate) async fn clean(database: &Database, before: Timestamp) -> Result<u64, sqlx::Error> {
    let mut tx = database.begin().await?;
    let done = sqlx::query("DELETE FROM consumer_crashes WHERE crashed_at < $1")
        .bind(before.as_microsecond())
        .execute(tx.conn())
        .await?
        .rows_affected();
    tx.commit().await?;
    Ok(done)
}

fn partition(row: &sqlx::any::AnyRow) -> Result<Partition, sqlx::Error> {
    let topic: String = row.try_get("topic")?;
    let number = i32::try_from(row.try_get::<i64, _>("partition")?);
    let number = number.map_err(|error| crate::database::columns::undecodable("partition", error))?;
    Ok(Partition { topic: topic.into(), number })
}

/// `(before $4, $5), (before $6, $7)`: so many pairs of placeholders, from number `first` on.
fn pairs(before: &str, first: usize, count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let (comma, first) = (if number == 0 { "" } else { ", " }, first + 2 * number);
        write!(text, "{comma}({before}${first}, ${})", first + 1).expect("a String takes everything");
    }
    text
}
