//! Publishes the rows of an outbox.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    OnPublished, Published,
    lease::Lease,
    row::{COLUMNS, StoredRow},
};
use crate::{
    Clock, Database, Tx,
    database::Dialect,
    producer::{ProduceError, Producer},
};

const BATCH: i64 = 500;

/// Publishes the rows of one database's outbox, in every instance of a service; one of them at a time does the work.
pub struct Relay {
    database: Database,
    producer: Producer,
    source: &'static str,
    on_published: Option<Arc<dyn OnPublished>>,
    clock: Clock,
    owner: String,
}

impl Relay {
    /// A relay for the service `source`.
    pub fn new(
        database: Database,
        producer: Producer,
        source: &'static str,
        on_published: Option<Arc<dyn OnPublished>>,
        clock: Clock,
    ) -> Relay {
        let owner = Uuid::now_v7().to_string();
        Relay { database, producer, source, on_published, clock, owner }
    }

    /// Publishes until `shutdown` is cancelled, then finishes the rows in hand and lets another relay take over.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut lease = None;
        while !shutdown.is_cancelled() {
            match self.round(&mut lease).await {
                Ok(true) => {}
                Ok(false) => self.rest(&shutdown).await,
                Err(error) => {
                    tracing::warn!(service = self.source, error = &error as &dyn std::error::Error, "the outbox waits");
                    lease = None;
                    self.rest(&shutdown).await;
                }
            }
        }
        if let Some(lease) = lease
            && let Err(error) = lease.release(&self.database).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "the lease ends by itself");
        }
    }

    /// Publishes some rows; false when there is nothing to do at the moment.
    async fn round(&self, lease: &mut Option<Lease>) -> Result<bool, sqlx::Error> {
        let now = self.clock.now();
        if lease.is_none() {
            *lease = Lease::acquire(&self.database, &self.owner, now).await?;
        }
        let Some(held) = lease.as_ref() else { return Ok(false) };
        let moved = self.move_due(held).await?;
        let rows = self.read().await?;
        if rows.is_empty() {
            if !moved && !held.renew(&self.database, now).await? {
                *lease = None;
            }
            return Ok(moved);
        }
        let published = self.publish(rows).await;
        if published.is_empty() {
            return Ok(false);
        }
        if !self.settle(held, &published).await? {
            *lease = None;
        }
        Ok(true)
    }

    async fn rest(&self, shutdown: &CancellationToken) {
        let poll = match self.database.dialect() {
            Dialect::Postgres => Duration::from_millis(500),
            Dialect::Sqlite => Duration::from_millis(100),
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.database.committed().notified() => {}
            () = tokio::time::sleep(poll) => {}
        }
    }

    async fn move_due(&self, lease: &Lease) -> Result<bool, sqlx::Error> {
        let now = self.clock.now();
        let due: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM outbox_delayed WHERE not_before <= $1 ORDER BY not_before, seq LIMIT $2",
        )
        .bind(now.as_microsecond())
        .bind(BATCH)
        .fetch_all(self.database.pool())
        .await?;
        if due.is_empty() {
            return Ok(false);
        }
        let mut tx = self.database.begin().await?;
        if !lease.check(&mut tx, now).await? {
            return Ok(false);
        }
        let list = list(&due);
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO outbox (event_id, topic, record_key, headers, value, created_at) \
             SELECT event_id, topic, record_key, headers, value, $1 FROM outbox_delayed \
             WHERE seq IN ({list}) ORDER BY not_before, seq"
        )))
        .persistent(false)
        .bind(now.as_microsecond())
        .execute(tx.conn())
        .await?;
        delete(&mut tx, "outbox_delayed", &due).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn read(&self) -> Result<Vec<StoredRow>, sqlx::Error> {
        sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM outbox ORDER BY seq LIMIT $1")))
            .bind(BATCH)
            .fetch_all(self.database.pool())
            .await?
            .iter()
            .map(StoredRow::from_row)
            .collect()
    }

    /// Keys side by side, the rows of one key one after the other: a row is sent when those before it are acknowledged.
    async fn publish(&self, rows: Vec<StoredRow>) -> Vec<(i64, Published)> {
        let mut lanes: HashMap<String, Vec<StoredRow>> = HashMap::new();
        for row in rows {
            lanes.entry(row.key.clone()).or_default().push(row);
        }
        join_all(lanes.into_values().map(|lane| self.publish_lane(lane))).await.into_iter().flatten().collect()
    }

    async fn publish_lane(&self, rows: Vec<StoredRow>) -> Vec<(i64, Published)> {
        let mut published = Vec::new();
        for row in rows {
            match self.producer.send(row.to_record()).await {
                Ok(origin) => published.push((row.seq, Published { event_id: row.event_id, origin })),
                Err(error) => {
                    tracing::warn!(
                        service = self.source, event_id = %row.event_id, error = &error as &dyn std::error::Error,
                        "not published yet"
                    );
                    let _: ProduceError = error;
                    break;
                }
            }
        }
        published
    }

    async fn settle(&self, lease: &Lease, published: &[(i64, Published)]) -> Result<bool, sqlx::Error> {
        let mut tx = self.database.begin().await?;
        if !lease.check(&mut tx, self.clock.now()).await? {
            return Ok(false);
        }
        if let Some(on_published) = &self.on_published {
            let events: Vec<Published> = published.iter().map(|(_, event)| event.clone()).collect();
            on_published.published(&mut tx, &events).await?;
        }
        let seqs: Vec<i64> = published.iter().map(|(seq, _)| *seq).collect();
        delete(&mut tx, "outbox", &seqs).await?;
        tx.commit().await?;
        Ok(true)
    }
}

async fn delete(tx: &mut Tx, table: &str, seqs: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE seq IN ({})", list(seqs))))
        .persistent(false)
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn list(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
