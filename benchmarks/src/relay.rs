//! From the outbox to the topic: rows that are read, published, and removed once they are acknowledged.

mod by_hand;

use std::{sync::Arc, time::Duration};

use clap::Args;
use event_runtime::{
    Clock, Database, Outbox, Tx,
    database::Dialect,
    outbox::{OnPublished, Published, Relay, depth},
    producer::Producer,
    topics::TopicSpec,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde_json::json;
use shared_events::{CorrelationId, Event as _};
use sqlx::{Connection as _, PgConnection};
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
    let ours = Subject::runtime("one relay");
    let mut results = Results::new("relay", "rows/s", settings);
    site.steps(2 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        for subject in [&by_hand, &ours] {
            site.step(&subject.variant);
            let outbox = site.databases().copy(&filled).await?;
            site.make_topics(&[TopicSpec::from(Order::TOPIC)]).await?;
            let round = match subject == &ours {
                true => by_the_runtime(site, &outbox, options.rows).await?,
                false => by_hand::publish(site, &outbox, options.rows, options.batch).await?,
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

async fn by_the_runtime(site: &Site, outbox: &Scratch, rows: u64) -> anyhow::Result<Round> {
    let database = Database::connect_lazy(&outbox.url)?;
    let count = Arc::new(Count::of(rows, site.meter));
    let told = Arc::new(Told(Arc::clone(&count)));
    let relay = Relay::new(database.clone(), Producer::new(&site.kafka)?, "benchmark", Some(told), Clock::system());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(relay.run(shutdown.clone()));
    let round = count.all(PATIENCE).await?;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await??;
    let left = depth(&database, Timestamp::now()).await?;
    anyhow::ensure!(left.rows + left.set_aside == 0, "rows are left: {left:?}");
    anyhow::ensure!(count.so_far() == rows, "{} rows were published, not {rows}", count.so_far());
    tokio::time::timeout(Duration::from_secs(10), database.close()).await?;
    Ok(round)
}

/// Counts rows that are removed.
struct Told(Arc<Count>);

impl OnPublished for Told {
    fn published<'a>(&'a self, _: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        self.0.some(rows.len() as u64);
        async { Ok(()) }.boxed()
    }
}
