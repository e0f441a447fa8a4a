//! What somebody writes: take what the client has, give each key to one connection, commit offsets when all are through.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    message::Headers as _,
};
use shared_events::{Envelope, Event as _};
use tokio::{runtime::Handle, task::spawn_blocking};
use uuid::Uuid;

use super::{Kind, Order, postgres, sqlite};
use crate::{
    databases::Scratch,
    figure::Round,
    measure::Count,
    site::{PATIENCE, Site},
    topics::Sold,
};

/// How many records each connection is given at once where each record has a transaction of its own.
const SHARE: usize = 250;

/// A way to do it.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    pub connections: usize,
    /// How many records share a transaction.
    pub batch: usize,
}

/// What is written for a record.
#[derive(Debug)]
pub struct Sale {
    pub event_id: String,
    pub order_id: String,
    pub customer_email: String,
    pub total_minor: i64,
    pub published: Published,
}

/// The outbox row.
#[derive(Debug)]
pub struct Published {
    pub event_id: String,
    pub headers: String,
    pub value: Vec<u8>,
}

/// Connections that write sales.
pub enum Store {
    Postgres(Vec<sqlx::PgConnection>),
    Sqlite(Box<sqlx::SqliteConnection>),
}

impl Store {
    async fn connect(kind: Kind, scratch: &Scratch, connections: usize) -> anyhow::Result<Store> {
        Ok(match kind {
            Kind::Postgres => Store::Postgres(postgres::connect(&scratch.url, connections).await?),
            Kind::Sqlite => Store::Sqlite(Box::new(sqlite::connect(&scratch.url).await?)),
        })
    }

    /// Writes the sales of each connection side by side, so many in a transaction.
    async fn write(&mut self, shares: &[Vec<Sale>], batch: usize) -> anyhow::Result<()> {
        match self {
            Store::Postgres(connections) => {
                let pairs = connections.iter_mut().zip(shares);
                try_join_all(pairs.map(|(connection, sales)| postgres::write(connection, sales, batch))).await?;
            }
            Store::Sqlite(connection) => {
                for sales in shares {
                    sqlite::write(connection, sales, batch).await?;
                }
            }
        }
        Ok(())
    }
}

impl ByHand {
    /// Handles so many records.
    ///
    /// # Errors
    /// When Kafka, a record or the database is not as it should be.
    pub async fn run(self, site: &Site, kind: Kind, scratch: &Scratch, records: u64) -> anyhow::Result<Round> {
        let client = site.hand_written(site.new_group())?;
        let mut store = Store::connect(kind, scratch, self.connections).await?;
        let count = Arc::new(Count::of(records, site.meter));
        let counted = Arc::clone(&count);
        // Polling blocks.
        spawn_blocking(move || self.consume(client, &mut store, &counted, records)).await??;
        count.all(PATIENCE).await
    }

    fn consume(self, client: ClientConfig, store: &mut Store, count: &Count, records: u64) -> anyhow::Result<()> {
        let consumer: BaseConsumer = client.create()?;
        consumer.subscribe(&[Order::TOPIC.name])?;
        let runtime = Handle::current();
        let at_once = self.connections * if self.batch == 1 { SHARE } else { self.batch };
        let (mut left, mut heard) = (records, Instant::now());
        while left > 0 {
            let mut shares: Vec<Vec<Sale>> = (0..self.connections).map(|_| Vec::new()).collect();
            let (mut taken, mut next) = (0, [None; Order::TOPIC.partitions as usize]);
            let mut wait = Duration::from_millis(100);
            while (taken as u64) < left && taken < at_once {
                let Some(message) = consumer.poll(wait) else { break };
                let message = message?;
                count.begin();
                let sale = sale(&message)?;
                next[message.partition().unsigned_abs() as usize] = Some(message.offset() + 1);
                // A key has one connection, which keeps its order.
                let place = Uuid::parse_str(&sale.order_id)?.as_u128() % self.connections as u128;
                shares[place as usize].push(sale);
                taken += 1;
                wait = Duration::ZERO;
            }
            if taken == 0 {
                anyhow::ensure!(heard.elapsed() < PATIENCE, "nothing came for {PATIENCE:?}");
                continue;
            }
            heard = Instant::now();
            runtime.block_on(store.write(&shares, self.batch))?;
            commit(&consumer, &next)?;
            count.some(taken as u64);
            left -= taken as u64;
        }
        Ok(())
    }
}

fn sale(message: &rdkafka::message::BorrowedMessage<'_>) -> anyhow::Result<Sale> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let envelope = Envelope::from_headers(headers.map(|header| (header.key, header.value)))?;
    let order = serde_json::from_slice::<Order>(message.payload().unwrap_or_default())?.0;
    let sold = Sold { order_id: order.order_id, total: order.total };
    let mut caused = Envelope::new(&sold, "benchmarks", Timestamp::now());
    caused.correlation_id = envelope.correlation_id;
    caused.causation_id = Some(envelope.id);
    let published = Published {
        event_id: caused.id.to_string(),
        headers: serde_json::to_string(&caused.to_headers())?,
        value: serde_json::to_vec(&sold)?,
    };
    Ok(Sale {
        event_id: envelope.id.to_string(),
        order_id: order.order_id.to_string(),
        customer_email: order.customer_email,
        total_minor: order.total.minor,
        published,
    })
}

fn commit(consumer: &BaseConsumer, next: &[Option<i64>]) -> anyhow::Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in next.iter().enumerate() {
        if let Some(next) = next {
            offsets.add_partition_offset(Order::TOPIC.name, partition as i32, Offset::Offset(*next))?;
        }
    }
    Ok(consumer.commit(&offsets, CommitMode::Async)?)
}
