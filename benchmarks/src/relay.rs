//! From the outbox to the topic: rows that are read, published, and removed once they are acknowledged.

mod by_hand;

use std::{collections::HashMap, sync::Arc, time::Instant};

use clap::Args;
use event_runtime::{
    Clock, Database, Outbox, Tx,
    config::KafkaConfig,
    database::Dialect,
    outbox::{OnPublished, Published, Relay, depth},
    producer::Producer,
    reader::{Position, Reader},
    topics::TopicSpec,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::json;
use shared_events::{CorrelationId, Event as _};
use sqlx::{Connection as _, PgConnection};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::{
    databases::Scratch,
    figure::{Results, Round, Subject},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{Bought, topic::RELAY},
};

type Order = Bought<RELAY>;

/// Rows a transaction when the outbox is filled.
const FILLED_AT_ONCE: u64 = 1000;

#[derive(Args)]
pub struct Options {
    /// How many rows are in the outbox
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(2..))]
    rows: u64,

    /// How many keys they have
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,

    /// How many rows the loop written by hand takes at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
}

/// Runs the workload.
///
/// # Errors
/// When rows were left, or published twice.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let settings = json!({
        "rows": options.rows, "keys": options.keys, "partitions": Order::TOPIC.partitions,
        "hand_written_batch": options.batch, "linger_ms": 0, "embedded": site.is_embedded(),
    });
    site.step("filling the outbox");
    let filled = site.databases().make(Dialect::Postgres, &[]).await?;
    fill(&filled, options).await?;
    let by_hand = Subject::by_hand("select, produce, delete");
    let ours = [("1 relay", 1), ("4 relays", 4)].map(|(variant, relays)| (Subject::runtime(variant), Some(relays)));
    let subjects: Vec<_> = std::iter::once((by_hand, None)).chain(ours).collect();
    let mut results = Results::new("relay", "rows/s", settings);
    site.steps(subjects.len() as u64 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        for (subject, relays) in &subjects {
            site.step(&subject.variant);
            let outbox = site.databases().copy(&filled).await?;
            site.make_topics(&[TopicSpec::from(Order::TOPIC)]).await?;
            let round = match relays {
                Some(relays) => by_the_runtime(site, &outbox, options.rows, *relays).await?,
                None => by_hand::publish(site, &outbox, options.rows, options.batch).await?,
            };
            results.add(subject, round);
            site.remove_topic(Order::TOPIC.name).await?;
            site.databases().remove(&outbox).await?;
            site.step_done();
        }
    }
    Ok(vec![results])
}

async fn fill(scratch: &Scratch, options: &Options) -> anyhow::Result<()> {
    let database = Database::connect_lazy(&scratch.url)?;
    let mut number = 0;
    while number < options.rows {
        let mut outbox = Outbox::root("benchmarks", CorrelationId::new(), Timestamp::now());
        for _ in 0..FILLED_AT_ONCE.min(options.rows - number) {
            outbox.publish(&Order::number(number, options.keys))?;
            number += 1;
        }
        database.commit(database.begin().await?, outbox).await?;
    }
    database.close().await;
    let mut connection = PgConnection::connect(&scratch.url).await?;
    // As autovacuum would have done by and by, in the middle of somebody's round.
    sqlx::raw_sql("VACUUM ANALYZE outbox").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn by_the_runtime(site: &Site, outbox: &Scratch, rows: u64, relays: usize) -> anyhow::Result<Round> {
    let count = Arc::new(Count::of(rows, site.meter));
    let (shutdown, mut running) = (CancellationToken::new(), Vec::new());
    for _ in 0..relays {
        // Each with connections and a client of its own, as in a process of its own.
        let (database, producer) = (Database::connect_lazy(&outbox.url)?, Producer::new(&site.kafka)?);
        let told = Arc::new(Told(Arc::clone(&count)));
        let relay = Relay::new(database.clone(), producer, "benchmark", Some(told), Clock::system());
        running.push((tokio::spawn(relay.run(shutdown.clone())), database));
    }
    let round = count.all(PATIENCE).await?;
    shutdown.cancel();
    for (running, database) in running {
        tokio::time::timeout(PATIENCE, running).await??;
        let left = depth(&database, Timestamp::now()).await?;
        anyhow::ensure!(left.rows + left.set_aside == 0, "rows are left: {left:?}");
        tokio::time::timeout(PATIENCE, database.close()).await?;
    }
    let kafka = site.kafka.clone();
    spawn_blocking(move || check_order(&kafka, rows)).await??;
    Ok(round)
}

/// Every row is in the topic, those of a key in the order of their numbers. Blocks.
fn check_order(kafka: &KafkaConfig, rows: u64) -> anyhow::Result<()> {
    let topics = [Order::TOPIC.name.to_owned()];
    let mut reader = Reader::open(kafka, &topics, Position::Start, Timestamp::now())?;
    let until = Instant::now() + PATIENCE;
    let (mut last, mut read) = (HashMap::new(), 0);
    while let Some(record) = reader.next_kept(until)? {
        let order: Order = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        let before = last.insert(order.0.order_id, order.0.expires_at);
        anyhow::ensure!(before < Some(order.0.expires_at), "key {} is out of order", order.0.order_id);
        read += 1;
    }
    anyhow::ensure!(read == rows, "{read} records are in the topic, not {rows}");
    Ok(())
}

/// Counts rows that are removed.
struct Told(Arc<Count>);

impl OnPublished for Told {
    fn published<'a>(&'a self, _: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        self.0.some(rows.len() as u64);
        async { Ok(()) }.boxed()
    }
}
