//! The embedded broker with the topics of the order system.

use std::ops::Deref;

use event_runtime::embedded::EmbeddedBroker;
use shared_events::topics;

/// A running broker, with what [`EmbeddedBroker`] offers. Keep it for as long as anything talks to it.
pub struct MockKafka(EmbeddedBroker);

impl MockKafka {
    /// A cluster of so many brokers, with every topic of `shared_events` and every dead-letter topic: it knows no
    /// `CreateTopics`.
    pub fn start(brokers: u16) -> MockKafka {
        let kafka = MockKafka::empty(brokers);
        for (name, partitions) in topics::all() {
            kafka.create(&name, partitions);
        }
        kafka
    }

    /// A cluster without topics, for tests that bring their own.
    pub fn empty(brokers: u16) -> MockKafka {
        MockKafka(EmbeddedBroker::start(brokers).expect("the embedded broker needs nothing but free ports"))
    }

    /// Creates one more topic.
    pub fn create(&self, name: &str, partitions: i32) {
        let created = self.create_topic(name, partitions);
        created.unwrap_or_else(|error| panic!("topic {name} cannot be created: {error}"));
    }
}

impl Deref for MockKafka {
    type Target = EmbeddedBroker;

    fn deref(&self) -> &EmbeddedBroker {
        &self.0
    }
}
