//! Records that nobody should have written: events that were said before, and what no handler can read.

use std::time::Duration;

use event_runtime::{
    Record,
    config::KafkaConfig,
    reader::{Position, collect},
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use test_support::records::publish_raw;
use uuid::Uuid;

const TOPICS: [&str; 5] = ["orders", "payments", "inventory", "mails", "order-deadlines"];
/// Fewer than what the guard against floods of dead letters would stop a consumer at.
const MOST_POISON: u64 = 40;

/// Publishes them, and counts.
pub struct Noise {
    kafka: KafkaConfig,
    pub duplicates: u64,
    pub poison: u64,
}

impl Noise {
    pub fn new(kafka: KafkaConfig) -> Noise {
        Noise { kafka, duplicates: 0, poison: 0 }
    }

    /// Says the last few events of a topic again, in their order. Poison is no event: nobody could count it twice.
    pub async fn duplicate(&mut self, random: &mut StdRng) {
        let topic = *TOPICS.choose(random).expect("there are topics");
        let last = Position::Last(random.random_range(1..6));
        for record in self.records(topic, last).await {
            if record.envelope().is_err() {
                continue;
            }
            let headers: Vec<(&str, &[u8])> =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or(b""))).collect();
            let key = String::from_utf8(record.key.clone().unwrap_or_default()).unwrap_or_default();
            self.publish(topic, &key, &headers, record.value.as_deref().unwrap_or_default()).await;
            self.duplicates += 1;
        }
    }

    /// Writes what no handler can read, under a key of its own or under that of an order.
    pub async fn poison(&mut self, random: &mut StdRng) {
        if self.poison >= MOST_POISON {
            return;
        }
        let topic = *TOPICS.choose(random).expect("there are topics");
        let bytes: [u8; 64] = random.random();
        let id = Uuid::from_u128(random.random()).to_string();
        let headers: [(&str, &[u8]); 5] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", id.as_bytes()),
            ("ce_source", b"chaos"),
            ("ce_type", b"order.created"),
            ("ce_time", b"2026-01-01T00:00:00Z"),
        ];
        let of_an_order = self.records(topic, Position::Last(1)).await.into_iter().find_map(|record| record.key);
        let key = of_an_order.and_then(|key| String::from_utf8(key).ok()).unwrap_or_else(|| "poison".to_owned());
        match random.random_range(0..3) {
            0 => self.publish(topic, &key, &[], &bytes).await,
            1 => self.publish(topic, &key, &headers[..2], b"{}").await,
            _ => self.publish("orders", "poison", &headers, b"{\"orderId\":").await,
        }
        self.poison += 1;
    }

    async fn publish(&self, topic: &str, key: &str, headers: &[(&str, &[u8])], value: &[u8]) {
        // Into the partition that the services' producers choose for the key.
        let kafka = self.kafka.clone().set("partitioner", "murmur2_random");
        publish_raw(&kafka, topic, key, headers, value).await;
    }

    /// What stands there now; nothing where the broker is too slow to say.
    async fn records(&self, topic: &'static str, from: Position) -> Vec<Record> {
        let kafka = self.kafka.clone();
        let read = move || collect(&kafka, |name| name == topic, from, Duration::from_secs(5), |_| true);
        let collected = tokio::task::spawn_blocking(read).await.expect("the reader ends");
        collected.map(|collected| collected.records).unwrap_or_default()
    }
}
