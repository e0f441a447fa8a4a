//! Records that nobody should have written: events that were said before, and what no handler can read.

use std::time::Duration;

use event_runtime::{
    Record,
    config::KafkaConfig,
    producer::{OutgoingRecord, Producer},
    reader::{Position, collect},
};
use eventctl::chaos::{duplicates::copy_of, poison};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use shared_events::header;

const TOPICS: [&str; 5] = ["orders", "payments", "inventory", "mails", "order-deadlines"];
/// Fewer than what the guard against floods of dead letters would stop a consumer at.
const MOST_POISON: u64 = 40;
const OWN_KEY: &str = "poison";

/// Publishes them, and counts.
pub struct Noise {
    kafka: KafkaConfig,
    producer: Producer,
    pub duplicates: u64,
    pub poison: u64,
}

impl Noise {
    pub fn new(kafka: KafkaConfig) -> Noise {
        let producer = Producer::new(&kafka).unwrap();
        Noise { kafka, producer, duplicates: 0, poison: 0 }
    }

    /// Says the last few events of a topic again, in their order.
    pub async fn duplicate(&mut self, random: &mut StdRng) {
        let topic = *TOPICS.choose(random).expect("there are topics");
        let last = Position::Last(random.random_range(1..6));
        for copy in self.records(topic, last).await.iter().filter_map(copy_of) {
            self.publish(copy).await;
            self.duplicates += 1;
        }
    }

    /// Writes what no handler can read, under the key of an order, or, where its headers are those of an event, under a key of its
    /// own: `verify` would count it among the order's events.
    pub async fn poison(&mut self, random: &mut StdRng) {
        if self.poison >= MOST_POISON {
            return;
        }
        let topic = *TOPICS.choose(random).expect("there are topics");
        let of_an_order = self.records(topic, Position::Last(1)).await.into_iter().find_map(|record| record.key);
        let key = of_an_order.and_then(|key| String::from_utf8(key).ok()).unwrap_or_else(|| OWN_KEY.to_owned());
        let mut record = poison::record(random.random(), topic, &key);
        if record.headers.iter().any(|(name, _)| name == header::TYPE) {
            record.key = Some(OWN_KEY.as_bytes().to_vec());
        }
        self.publish(record).await;
        self.poison += 1;
    }

    /// Again where a broker that was killed has cost the producer its place: what is written twice is noise as well.
    async fn publish(&self, record: OutgoingRecord) {
        let mut failure = None;
        for _ in 0..3 {
            match self.producer.send(record.clone()).await {
                Ok(_) => return,
                Err(error) => failure = Some(error),
            }
        }
        panic!("{} takes no record: {failure:?}", record.topic);
    }

    /// What stands there now; nothing where the broker is too slow to say.
    async fn records(&self, topic: &'static str, from: Position) -> Vec<Record> {
        let kafka = self.kafka.clone();
        let read = move || collect(&kafka, |name| name == topic, from, Duration::from_secs(5), |_| true);
        let collected = tokio::task::spawn_blocking(read).await.expect("the reader ends");
        collected.map(|collected| collected.records).unwrap_or_default()
    }
}
