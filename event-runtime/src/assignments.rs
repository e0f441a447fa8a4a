//! Which consumer has which partition, durably: so that whoever has it next knows whether its owner handed it over or
//! died, and, of a record that was attempted alone, that it was the cause. See [`Legacy`].
//!
//! A row is written before the first record of an assignment is handled, and removed before the partition is given back.
//! Nobody removes or changes another owner's row but by taking the partition over.

use std::{collections::HashMap, fmt::Write as _};

use jiff::Timestamp;
use sqlx::Row as _;

use crate::{
    Database, Tx,
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
    /// One that is still alive may be taken for dead, as when a partition is lost: after another death its records are then
    /// handled with more care than they need.
    pub(crate) async fn take(&self, partitions: &[Partition], now: Timestamp) -> Result<Vec<Legacy>, sqlx::Error> {
        let mut tx = self.database.begin().await?;
        let mut legacies: HashMap<&Partition, Legacy> =
            partitions.iter().map(|partition| (partition, Legacy::default())).collect();
        let left = sqlx::query(
            "SELECT topic, partition, owner, attempting, deaths, reached FROM consumer_assignments \
             WHERE consumer_group = $1",
        )
        .bind(self.group)
        .fetch_all(tx.conn())
        .await?;
        for row in &left {
            let partition = partition(row)?;
            let Some(legacy) = legacies.get_mut(&partition) else { continue };
            let deaths = u32::try_from(row.try_get::<i64, _>("deaths")?).unwrap_or(u32::MAX);
            legacy.reached = row.try_get("reached")?;
            if row.try_get::<String, _>("owner")? == self.owner {
                legacy.deaths = deaths;
                continue;
            }
            legacy.deaths = deaths.saturating_add(1);
            legacy.culprit = row.try_get("attempting")?;
            if let Some(offset) = legacy.culprit {
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
             SET owner = excluded.owner, assigned_at = excluded.assigned_at, attempting = NULL, \
                 deaths = consumer_assignments.deaths \
                     + CASE WHEN consumer_assignments.owner = excluded.owner THEN 0 ELSE 1 END",
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

    /// Notes that the partition is handled up to `reached`: whatever its owners before died of, that one has got further.
    pub(crate) async fn outlive(&self, partition: &Partition, reached: i64) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin().await?;
        self.update(&mut tx, partition, "deaths = 0, reached = $1", Some(reached)).await?;
        tx.commit().await
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
        self.update(&mut tx, partition, "attempting = $1", Some(offset)).await?;
        tx.commit().await
    }

    /// Notes that the process has outlived the attempt; with `done`, that the record will not be attempted again.
    pub(crate) async fn end_alone(&self, partition: &Partition, offset: i64, done: bool) -> Result<(), sqlx::Error> {
        let mut tx = self.database.begin().await?;
        self.update(&mut tx, partition, "attempting = $1", None).await?;
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

    /// Sets columns of the partition's row; `$1` in `set` is the offset.
    async fn update(
        &self,
        tx: &mut Tx,
        partition: &Partition,
        set: &'static str,
        offset: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        // Where somebody else has taken the partition over meanwhile, this changes nothing.
        let update = format!(
            "UPDATE consumer_assignments SET {set} \
             WHERE consumer_group = $2 AND topic = $3 AND partition = $4 AND owner = $5"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn partitions(numbers: std::ops::Range<i32>) -> Vec<Partition> {
        numbers.map(|number| Partition { topic: "orders".into(), number }).collect()
    }

    fn legacy(deaths: u32, culprit: Option<i64>, crashes: &[(i64, u32)]) -> Legacy {
        Legacy { deaths, reached: 0, culprit, crashes: crashes.iter().copied().collect() }
    }

    /// Makes members of a group on a database of its own.
    async fn members() -> (tempfile::TempDir, impl Fn(&str) -> Assignments) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        let member = move |owner: &str| {
            let (database, owner) = (database.clone(), owner.to_owned());
            Assignments { database, group: "notes-service", owner }
        };
        (folder, member)
    }

    #[tokio::test]
    async fn a_row_that_its_owner_left_behind_tells_of_its_death() {
        let (_folder, member) = members().await;
        let (first, second) = (member("first"), member("second"));
        let take = async |member: &Assignments| member.take(&partitions(0..3), NOW).await.unwrap();
        assert_eq!(take(&first).await, [legacy(0, None, &[]), legacy(0, None, &[]), legacy(0, None, &[])]);
        assert_eq!(take(&first).await[0], legacy(0, None, &[]), "its own: it is alive");
        first.give_back(&partitions(1..3)).await.unwrap();
        assert_eq!(take(&second).await, [legacy(1, None, &[]), legacy(0, None, &[]), legacy(0, None, &[])]);

        // The first one was alive after all, and late.
        first.give_back(&partitions(0..3)).await.unwrap();
        first.begin_alone(&partitions(0..1)[0], 7).await.unwrap();
        first.give_back_all().await.unwrap();
        let third = member("third");
        assert_eq!(take(&third).await, [legacy(2, None, &[]), legacy(1, None, &[]), legacy(1, None, &[])]);
        third.give_back_all().await.unwrap();
        assert_eq!(take(&second).await[0], legacy(0, None, &[]));
        let other = Assignments { group: "mails-service", ..member("fourth") };
        assert_eq!(take(&other).await[0], legacy(0, None, &[]), "another group's are its own");
    }

    #[tokio::test]
    async fn deaths_in_a_row_are_counted_until_an_owner_gets_further() {
        let (_folder, member) = members().await;
        let partitions = partitions(0..2);
        let take = async |owner: &str| {
            let member = member(owner);
            let legacies = member.take(&partitions, NOW).await.unwrap();
            ((legacies[0].deaths, legacies[0].reached, legacies[1].deaths), member)
        };
        take("first").await;
        let (left, second) = take("second").await;
        assert_eq!(left, (1, 0, 1));
        second.outlive(&partitions[0], 7).await.unwrap();
        let (left, third) = take("third").await;
        assert_eq!(left, (1, 7, 2));
        second.outlive(&partitions[0], 8).await.unwrap();
        assert_eq!(take("third").await.0, (1, 7, 2), "an earlier owner is late, and this one is alive");
        third.give_back_all().await.unwrap();
        assert_eq!(take("fourth").await.0, (0, 0, 0));
    }

    #[tokio::test]
    async fn deaths_are_counted_for_the_record_that_was_attempted_alone_until_it_is_done() {
        let (_folder, member) = members().await;
        let partitions = partitions(0..2);
        let [partition, _] = &partitions[..] else { panic!("there are two") };
        let take = async |owner: &str| {
            let member = member(owner);
            let legacies = member.take(&partitions, NOW).await.unwrap();
            assert_eq!(legacies[1].crashes, legacy(0, None, &[]).crashes, "the other one is above suspicion");
            (legacies[0].clone(), member)
        };
        let (_, first) = take("first").await;
        first.begin_alone(partition, 5).await.unwrap();
        first.end_alone(partition, 5, false).await.unwrap();
        first.begin_alone(partition, 6).await.unwrap();
        let (left, second) = take("second").await;
        assert_eq!(left, legacy(1, Some(6), &[(6, 1)]), "the process outlived the attempt at 5");
        second.begin_alone(partition, 6).await.unwrap();
        let (left, third) = take("third").await;
        assert_eq!(left, legacy(2, Some(6), &[(6, 2)]));
        third.begin_alone(partition, 9).await.unwrap();
        third.end_alone(partition, 9, true).await.unwrap();
        let (left, fourth) = take("fourth").await;
        assert_eq!(left, legacy(3, None, &[(6, 2)]), "it died of something else");
        fourth.begin_alone(partition, 6).await.unwrap();
        fourth.end_alone(partition, 6, true).await.unwrap();
        fourth.give_back_all().await.unwrap();
        let (left, fifth) = take("fifth").await;
        assert_eq!(left, legacy(0, None, &[]), "6 is done");

        fifth.begin_alone(partition, 8).await.unwrap();
        let (_, last) = take("last").await;
        assert_eq!(clean(&last.database, NOW).await.unwrap(), 0);
        assert_eq!(clean(&last.database, NOW + SignedDuration::from_secs(1)).await.unwrap(), 1);
    }
}
