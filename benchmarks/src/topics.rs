//! What the workloads read: their topics, events and records.

use std::time::Duration;

use anyhow::Context;
use event_runtime::config::KafkaConfig;
use jiff::Timestamp;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde::{Deserialize, Serialize};
use shared_events::{
    CorrelationId, Currency, Envelope, Event, Money, OrderCreated, OrderId, OrderItem, Pattern, Topic,
};
use uuid::Uuid;

/// Topics by number, which is a parameter of the event types below.
pub mod topic {
    pub const PASS_THROUGH: usize = 0;
    pub const KEYED_IO_A: usize = 1;
    pub const KEYED_IO_B: usize = 2;
    pub const KEYED_IO_C: usize = 3;
    pub const KEYED_IO_D: usize = 4;
    pub const POISON: usize = 5;
    pub const RELAY: usize = 6;
    pub const TRANSACTIONAL: usize = 7;
    /// Where transactional handlers would publish, if a relay ran.
    pub const SOLD: usize = 8;
    pub const BACKLOG: usize = 9;
    pub const START: usize = 10;
    pub const SCALE_1: usize = 11;
    pub const SCALE_2: usize = 12;
    pub const SCALE_4: usize = 13;
    pub const SCALE_KEYS_10: usize = 14;
    pub const SCALE_KEYS_1K: usize = 15;
    pub const SCALE_KEYS_100K: usize = 16;
    pub const SCALE_KEYS_1M: usize = 17;
    pub const SCALE_PARTITIONS_6: usize = 18;
    pub const SCALE_PARTITIONS_60: usize = 19;
    pub const SCALE_PARTITIONS_600: usize = 20;
}

const TOPICS: [Topic; 21] = [
    named("benchmark.pass-through", 6),
    named("benchmark.keyed-io-a", 1),
    named("benchmark.keyed-io-b", 6),
    named("benchmark.keyed-io-c", 1),
    named("benchmark.keyed-io-d", 1),
    named("benchmark.poison", 6),
    named("benchmark.relay", 6),
    named("benchmark.transactional", 6),
    named("benchmark.sold", 6),
    named("benchmark.backlog", 6),
    named("benchmark.start", 6),
    named("benchmark.scale-1", 12),
    named("benchmark.scale-2", 12),
    named("benchmark.scale-4", 12),
    named("benchmark.scale-keys-10", 6),
    named("benchmark.scale-keys-1k", 6),
    named("benchmark.scale-keys-100k", 6),
    named("benchmark.scale-keys-1m", 6),
    named("benchmark.scale-partitions-6", 6),
    named("benchmark.scale-partitions-60", 60),
    named("benchmark.scale-partitions-600", 600),
];

const fn named(name: &'static str, partitions: i32) -> Topic {
    Topic { name, partitions, retention: Duration::from_secs(24 * 60 * 60) }
}

/// An order as it is published in earnest, some 300 bytes of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bought<const TOPIC: usize>(pub OrderCreated);

impl<const TOPIC: usize> Event for Bought<TOPIC> {
    const TYPE: &'static str = "benchmark.bought";
    const TOPIC: Topic = TOPICS[TOPIC];

    fn key(&self) -> String {
        self.0.order_id.to_string()
    }
}

impl<const TOPIC: usize> Bought<TOPIC> {
    /// The record of this number, of so many keys.
    pub fn number(number: u64, keys: u64) -> Self {
        let price = |minor| Money { minor, currency: Currency::EUR };
        let item = OrderItem { sku: "COFFEE-1KG".to_owned(), quantity: 2, unit_price: price(1899) };
        Bought(OrderCreated {
            order_id: OrderId(Uuid::from_u128(u128::from(number % keys))),
            user_id: None,
            customer_email: "ada.lovelace@example.com".to_owned(),
            items: vec![item],
            total: price(3798),
            payment_token: "tok_visa".to_owned(),
            pattern: Pattern::Choreography,
            expires_at: Timestamp::from_microsecond(1_800_000_000_000_000 + number as i64).expect("it is a date"),
        })
    }
}

/// Something that takes time and no CPU, such as a request to somebody else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work<const TOPIC: usize> {
    /// Its place among the records, from 0.
    pub number: u64,
    pub key: u32,
    pub sleep_us: u32,
}

impl<const TOPIC: usize> Event for Work<TOPIC> {
    const TYPE: &'static str = "benchmark.work-asked";
    const TOPIC: Topic = TOPICS[TOPIC];

    fn key(&self) -> String {
        self.key.to_string()
    }
}

/// What follows from an order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sold {
    pub order_id: OrderId,
    pub total: Money,
}

impl Event for Sold {
    const TYPE: &'static str = "benchmark.sold";
    const TOPIC: Topic = TOPICS[topic::SOLD];

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// Writes records to a topic.
pub struct Writer {
    producer: BaseProducer,
}

impl Writer {
    /// One that fills a topic: many records a request.
    pub fn fast(kafka: &KafkaConfig) -> anyhow::Result<Writer> {
        Writer::lingering(kafka, "20")
    }

    /// One whose records are there as soon as can be.
    pub fn prompt(kafka: &KafkaConfig) -> anyhow::Result<Writer> {
        Writer::lingering(kafka, "0")
    }

    fn lingering(kafka: &KafkaConfig, linger_ms: &str) -> anyhow::Result<Writer> {
        let mut config = kafka.client()?;
        // Idempotence, for the order within a partition is the order of the records' numbers.
        config.set("enable.idempotence", "true").set("linger.ms", linger_ms);
        Ok(Writer { producer: config.create()? })
    }

    /// Connects, so that the first record does not wait for that.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn connect<E: Event>(&self) -> anyhow::Result<()> {
        self.producer.client().fetch_metadata(Some(E::TOPIC.name), Duration::from_secs(20))?;
        Ok(())
    }

    /// Hands `event` over, with an envelope as the runtime writes it. Blocks while too much is under way.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn write<E: Event>(&self, event: &E, partition: i32) -> anyhow::Result<()> {
        let mut envelope = Envelope::new(event, "benchmarks", Timestamp::now());
        envelope.correlation_id = Some(CorrelationId::new());
        let headers = envelope.to_headers();
        let headers = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(value.as_bytes()) })
        });
        let (key, value) = (event.key(), serde_json::to_vec(event)?);
        let mut record = BaseRecord::to(E::TOPIC.name).key(&key).payload(&value).headers(headers).partition(partition);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error).context("a record was not taken"),
            }
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits for all acknowledgements.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn finish(self) -> anyhow::Result<()> {
        self.producer.flush(Duration::from_secs(60)).context("not all records were acknowledged")
    }
}

/// Fills the topic of [`Bought`] with so many records of so many keys, each key in one partition. Blocks.
///
/// # Errors
/// When the broker does not take one of them.
pub fn fill<const TOPIC: usize>(kafka: &KafkaConfig, records: u64, keys: u64) -> anyhow::Result<()> {
    let writer = Writer::fast(kafka)?;
    let partitions = u64::from(TOPICS[TOPIC].partitions.unsigned_abs());
    for number in 0..records {
        writer.write(&Bought::<TOPIC>::number(number, keys), (number % keys % partitions) as i32)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_of_the_size_that_is_said() {
        let value = serde_json::to_vec(&Bought::<{ topic::PASS_THROUGH }>::number(7, 1000)).unwrap();
        assert!((270..=340).contains(&value.len()), "{}", value.len());
    }

    #[test]
    fn records_have_as_many_keys_as_asked_for() {
        let keys: std::collections::HashSet<String> =
            (0..100).map(|number| Bought::<{ topic::PASS_THROUGH }>::number(number, 10).key()).collect();
        assert_eq!(keys.len(), 10);
    }
}
