//! Records that change a database: each an inbox row, a business row and an outbox row in one transaction, its offset
//! committed after that.

mod by_hand;
mod postgres;
mod sqlite;

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use event_runtime::{
    BatchHandler, ConsumerBuilder, Database, Delivery, HandlerError, Migration, Outbox, TransactionalHandler, Tx,
    consumer::ConsumerMetrics,
    database::{Dialect, rows},
    reader::Brokers,
    topics::TopicSpec,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use shared_events::Event as _;
use sqlx::AssertSqlSafe;
use tokio::task::spawn_blocking;

use self::by_hand::ByHand;
use crate::{
    databases::Scratch,
    figure::{Results, Round, Subject},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{Bought, Sold, fill, topic::TRANSACTIONAL},
};

type Order = Bought<TRANSACTIONAL>;

const KEYS: u64 = 1000;
/// How many records share a transaction of the batches written by hand.
const BATCH: usize = 500;
/// The most rows in a statement of the set-based handler.
const MOST_ROWS: usize = 256;
/// How often it is looked how many records are handled.
const LOOK_EVERY: Duration = Duration::from_millis(10);

const SCHEMA: [Migration; 1] = [Migration {
    version: 1,
    name: "sales",
    sql: "CREATE TABLE sale (order_id TEXT NOT NULL, customer_email TEXT NOT NULL, total_minor BIGINT NOT NULL);",
}];

#[derive(Args)]
pub struct Options {
    /// How many records are handled in each round
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..))]
    records: u64,

    /// How many of them are handled where each has a transaction of its own, which takes much longer
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    singly: u64,

    /// In which databases; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    databases: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Postgres,
    Sqlite,
}

impl Kind {
    fn dialect(self) -> Dialect {
        match self {
            Kind::Postgres => Dialect::Postgres,
            Kind::Sqlite => Dialect::Sqlite,
        }
    }

    /// What ratios refer to comes first.
    fn by_hand(self) -> Vec<(Subject, ByHand)> {
        let subject = |text: &str| Subject::by_hand(text);
        match self {
            Kind::Postgres => vec![
                (subject("a transaction a record, 1 connection"), ByHand { connections: 1, batch: 1 }),
                (subject("a transaction a record, 8 connections"), ByHand { connections: 8, batch: 1 }),
                (subject("batches of 500 by unnest, 1 connection"), ByHand { connections: 1, batch: BATCH }),
                (subject("batches of 500 by unnest, 2 connections"), ByHand { connections: 2, batch: BATCH }),
            ],
            Kind::Sqlite => vec![
                (subject("a transaction a record"), ByHand { connections: 1, batch: 1 }),
                (subject("batches of 500"), ByHand { connections: 1, batch: BATCH }),
            ],
        }
    }
}

/// How the runtime's handler takes records.
#[derive(Clone, Copy)]
enum Ours {
    OneByOne,
    Together,
}

/// Runs the workload.
///
/// # Errors
/// When rows are missing or there twice, or offsets were not committed.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let kinds = if options.databases.is_empty() { Kind::value_variants() } else { &options.databases };
    site.make_topics(&[TopicSpec::from(Order::TOPIC)]).await?;
    site.step("writing records");
    let (kafka, records) = (site.kafka.clone(), options.records);
    spawn_blocking(move || fill::<TRANSACTIONAL>(&kafka, records, KEYS)).await??;
    let ours = [
        (Subject::runtime("per-record handler"), Ours::OneByOne),
        (Subject::runtime("set-based handler"), Ours::Together),
    ];
    let subjects: usize = kinds.iter().map(|kind| kind.by_hand().len() + ours.len()).sum();
    site.steps(subjects as u64 * u64::from(site.rounds));
    let mut all = Vec::new();
    for kind in kinds {
        let settings = json!({
            "records": options.records, "records_singly": options.singly.min(options.records), "keys": KEYS,
            "partitions": Order::TOPIC.partitions, "embedded": site.is_embedded(),
        });
        let name = format!("transactional-{}", format!("{kind:?}").to_lowercase());
        let mut results = Results::new(name, "records/s", settings);
        for _ in 0..site.rounds {
            for (subject, by_hand) in kind.by_hand() {
                site.step(&format!("{kind:?}: {}", subject.variant));
                let records = if by_hand.batch == 1 { options.singly.min(options.records) } else { options.records };
                let scratch = site.databases().make(kind.dialect(), &SCHEMA).await?;
                results.add(&subject, by_hand.run(site, *kind, &scratch, records).await?);
                checked_and_removed(site, &scratch, records).await?;
                site.step_done();
            }
            for (subject, handler) in &ours {
                site.step(&format!("{kind:?}: {}", subject.variant));
                let scratch = site.databases().make(kind.dialect(), &SCHEMA).await?;
                results.add(subject, by_the_runtime(site, &scratch, options.records, *handler).await?);
                checked_and_removed(site, &scratch, options.records).await?;
                site.step_done();
            }
        }
        all.push(results);
    }
    Ok(all)
}

async fn by_the_runtime(site: &Site, scratch: &Scratch, records: u64, handler: Ours) -> anyhow::Result<Round> {
    let database = Database::connect_lazy(&scratch.url)?;
    let (metrics, mut registry) = (ConsumerMetrics::default(), Registry::default());
    metrics.register(&mut registry);
    let group = site.new_group();
    let count = Arc::new(Count::of(records, site.meter));
    let builder = ConsumerBuilder::new(group);
    let builder = match handler {
        Ours::OneByOne => builder.transactional(&database, Sell),
        Ours::Together => builder.batched(&database, SellTogether),
    };
    let consumer = site.start(builder, &metrics)?;
    let looks = async {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut seen = 0;
        while seen < records {
            looks.tick().await;
            // The handler's calls would not do: it returns before the commit.
            let handled = handled(&registry);
            count.some(handled - seen);
            seen = handled;
        }
    };
    let (round, ()) = tokio::join!(count.all(PATIENCE), async {
        tokio::time::timeout(PATIENCE * 20, looks).await.ok();
    });
    let round = round?;
    consumer.shutdown(PATIENCE).await?;
    database.close().await;
    let kafka = site.kafka.clone();
    let committed = spawn_blocking(move || -> anyhow::Result<i64> {
        let partitions = (0..Order::TOPIC.partitions).map(|partition| (Order::TOPIC.name.to_owned(), partition));
        let committed = Brokers::new(&kafka, Some(group))?.committed(partitions)?;
        Ok(committed.into_values().flatten().sum())
    });
    let committed = committed.await??;
    anyhow::ensure!(committed.unsigned_abs() == records, "offsets of {committed} of {records} records were committed");
    Ok(round)
}

fn handled(registry: &Registry) -> u64 {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a string cannot fail");
    let lines = text.lines().filter(|line| line.starts_with("consumer_records_handled_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Each record left its three rows, once.
async fn checked_and_removed(site: &Site, scratch: &Scratch, records: u64) -> anyhow::Result<()> {
    let database = Database::connect_lazy(&scratch.url)?;
    for table in ["inbox", "sale", "outbox"] {
        let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
        let rows: i64 = count.fetch_one(database.pool()).await?;
        anyhow::ensure!(rows.unsigned_abs() == records, "{table} has {rows} rows, not {records}");
    }
    database.close().await;
    site.databases().remove(scratch).await
}

/// Writes a sale and says so.
struct Sell;

impl TransactionalHandler for Sell {
    type Event = Order;

    async fn handle(&self, tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<Order>) -> Result<(), HandlerError> {
        let order = &delivery.event.0;
        sqlx::query("INSERT INTO sale (order_id, customer_email, total_minor) VALUES ($1, $2, $3)")
            .bind(order.order_id.to_string())
            .bind(order.customer_email.as_str())
            .bind(order.total.minor)
            .execute(tx.conn())
            .await?;
        outbox.publish(&Sold { order_id: order.order_id, total: order.total })?;
        Ok(())
    }
}

/// Writes the sales of all that is ready with a few statements.
struct SellTogether;

impl BatchHandler for SellTogether {
    type Event = Order;

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<Order>],
        outboxes: &mut [Outbox],
    ) -> Result<(), HandlerError> {
        for deliveries in rows::chunks(deliveries, MOST_ROWS) {
            let values = rows::values(0, deliveries.len(), 3);
            let sql = format!("INSERT INTO sale (order_id, customer_email, total_minor) VALUES {values}");
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for Delivery { event: Bought(order), .. } in deliveries {
                query =
                    query.bind(order.order_id.to_string()).bind(order.customer_email.as_str()).bind(order.total.minor);
            }
            query.execute(tx.conn()).await?;
        }
        for (Delivery { event: Bought(order), .. }, outbox) in deliveries.iter().zip(outboxes) {
            outbox.publish(&Sold { order_id: order.order_id, total: order.total })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handled_is_read_from_the_metrics() {
        let mut registry = Registry::default();
        ConsumerMetrics::default().register(&mut registry);
        assert_eq!(handled(&registry), 0);
    }
}
