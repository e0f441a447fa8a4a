//! A Kafka broker inside this process, for trying things out and for tests: librdkafka's mock cluster.
//!
//! It speaks Kafka's protocol over TCP, so other processes can connect to it. It is no Kafka: 5 MB a partition, nothing
//! kept after the process, aborted transactions not filtered, no topic creation or look-up by time through the protocol.

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    mocking::MockCluster,
    producer::{BaseProducer, DefaultProducerContext, Producer},
};

use crate::config::KafkaConfig;

/// A running embedded broker. It ends when this is dropped.
pub struct EmbeddedBroker {
    // The client that carries the mock cluster. Unlike the cluster's own handle it may move between threads.
    client: BaseProducer,
}

impl EmbeddedBroker {
    /// Starts `brokers` brokers on free ports of the loopback interface.
    ///
    /// # Errors
    /// When librdkafka cannot start them.
    pub fn start(brokers: u16) -> Result<EmbeddedBroker, KafkaError> {
        let client = ClientConfig::new().set("test.mock.num.brokers", brokers.to_string()).create()?;
        Ok(EmbeddedBroker { client })
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), KafkaError> {
        self.cluster().create_topic(name, partitions, 1)
    }

    /// `host:port` of every broker, separated by commas.
    pub fn addresses(&self) -> String {
        self.cluster().bootstrap_servers()
    }

    /// How to reach it, with the settings it needs: classic groups take seconds to form here, the new protocol none;
    /// and a fetch is answered only when `fetch.wait.max.ms` is over.
    pub fn config(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: self.addresses(),
            settings: ["group.protocol=consumer", "fetch.wait.max.ms=10"].map(str::to_owned).to_vec(),
        }
    }

    /// The mock cluster, to inject faults such as a broker that is down.
    pub fn cluster(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.client.client().mock_cluster().expect("the client was created with test.mock.num.brokers")
    }
}
