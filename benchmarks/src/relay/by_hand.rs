//! The loop of every outbox tutorial, with care for speed: select, produce, wait for all acknowledgements, delete.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::ensure;
use rdkafka::{
    ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use sqlx::{Connection as _, PgConnection};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    databases::Scratch,
    figure::Round,
    measure::Count,
    site::{PATIENCE, Site},
};

type Row = (i64, String, String, String, Vec<u8>);

/// Publishes all rows of `outbox`.
///
/// # Errors
/// When one is not published.
pub async fn publish(site: &Site, outbox: &Scratch, rows: u64, batch: u32) -> anyhow::Result<Round> {
    let mut config = site.kafka.client()?;
    // As safe as the runtime's, and as soon.
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
    let acknowledged = Acknowledged::default();
    let producer: BaseProducer<Acknowledged> = config.create_with_context(acknowledged.clone())?;
    let count = Arc::new(Count::of(rows, site.meter));
    let (counted, url) = (Arc::clone(&count), outbox.url.clone());
    // Flushing blocks, so all of it has a thread of its own.
    let work = move || -> anyhow::Result<()> {
        let runtime = Handle::current();
        let mut connection = runtime.block_on(PgConnection::connect(&url))?;
        let mut published = 0;
        counted.begin();
        loop {
            let rows = runtime.block_on(select(&mut connection, batch))?;
            if rows.is_empty() {
                return Ok(runtime.block_on(connection.close())?);
            }
            for row in &rows {
                send(&producer, row)?;
            }
            producer.flush(PATIENCE)?;
            published += rows.len();
            let known = acknowledged.0.load(Ordering::Acquire);
            ensure!(known == published, "{known} of {published} rows were acknowledged");
            runtime.block_on(delete(&mut connection, &rows))?;
            counted.some(rows.len() as u64);
        }
    };
    spawn_blocking(work).await??;
    count.all(PATIENCE).await
}

async fn select(connection: &mut PgConnection, batch: u32) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as("SELECT seq, topic, record_key, headers, value FROM outbox ORDER BY seq LIMIT $1")
        .bind(i64::from(batch))
        .fetch_all(connection)
        .await
}

fn send(producer: &BaseProducer<Acknowledged>, (_, topic, key, headers, value): &Row) -> anyhow::Result<()> {
    let headers: Vec<(String, String)> = serde_json::from_str(headers)?;
    let headers = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |headers, (name, value)| {
        headers.insert(Header { key: name, value: Some(value.as_bytes()) })
    });
    let record = BaseRecord::to(topic).key(key.as_bytes()).payload(value).headers(headers);
    // Less than the client's queue holds, so it is never full.
    producer.send(record).map_err(|(error, _)| error.into())
}

async fn delete(connection: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.0).collect();
    sqlx::query("DELETE FROM outbox WHERE seq = ANY($1)").bind(seqs).execute(connection).await?;
    Ok(())
}

/// Counts acknowledgements.
#[derive(Clone, Default)]
struct Acknowledged(Arc<AtomicUsize>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(usize::from(result.is_ok()), Ordering::Release);
    }
}
