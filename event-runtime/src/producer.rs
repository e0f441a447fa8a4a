//! An idempotent producer that waits for the broker's acknowledgement.
//!
//! Records of one partition are stored in the order in which they were handed over, repeated attempts included, as long
//! as none of them fails for good. A record that failed may have been stored all the same: whoever sends it again must be
//! able to bear a duplicate.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use tokio_util::sync::CancellationToken;

use crate::{
    HeaderName, Origin,
    config::{ConfigError, KafkaConfig},
    context::{QuietContext, report_statistics},
};

/// Writes records and waits until they are acknowledged by all in-sync replicas. Clones share one client.
#[derive(Clone)]
pub struct Producer {
    config: ClientConfig,
    client: Arc<RwLock<Arc<Client>>>,
}

/// A client of librdkafka, until it is beyond repair.
struct Client {
    kafka: FutureProducer<QuietContext>,
    stranded: CancellationToken,
}

/// A record on its way to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// The topic.
    pub topic: String,
    /// The partition; by default the key decides, as it does in Java's client.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(HeaderName, Option<Vec<u8>>)>,
}

/// Why a record is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The client could not be made.
    #[error("the Kafka producer cannot be configured")]
    Client(#[source] KafkaError),
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The record is larger than the client or the topic allows; it will be so the next time as well.
    #[error("the record for topic {topic} is too large")]
    TooLarge {
        /// Where it was to go.
        topic: String,
        /// What Kafka said.
        source: KafkaError,
    },
    /// There is no such topic or partition.
    #[error("topic {topic} does not exist; create it with `eventctl topics apply`")]
    UnknownTopic {
        /// Where it was to go.
        topic: String,
        /// What Kafka said.
        source: KafkaError,
    },
    /// No acknowledgement in time, or something else that may pass. The record may have been stored.
    #[error("the record for topic {topic} was not acknowledged")]
    NotAcknowledged {
        /// Where it was to go.
        topic: String,
        /// What Kafka said.
        source: KafkaError,
    },
}

/// What `-X` does not set.
const DEFAULTS: [(&str, &str); 9] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Every hop of an event would take that much longer.
    ("linger.ms", "0"),
    // What Java's client uses, so that both put a key into the same partition.
    ("partitioner", "murmur2_random"),
    ("message.timeout.ms", "30000"),
    // A misspelt topic is an error, not a topic with the broker's number of partitions. Said well before the timeout.
    ("allow.auto.create.topics", "false"),
    ("topic.metadata.propagation.max.ms", "10000"),
    // Soon there again after a broker's restart.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
];

impl Producer {
    /// A producer for these brokers. Connects in the background; an unreachable broker is no error here.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(kafka: &KafkaConfig) -> Result<Producer, ProduceError> {
        let config = client_config(kafka)?;
        let client = Arc::new(RwLock::new(Client::connect(&config)?));
        Ok(Producer { config, client })
    }

    /// Writes `record` and waits for the acknowledgement. Waits as well while the client's queue is full.
    ///
    /// Dropping the future does not take the record back.
    ///
    /// # Errors
    /// When the record is not known to be stored; [`ProduceError::NotAcknowledged`] is worth another attempt.
    pub async fn send(&self, record: OutgoingRecord) -> Result<Origin, ProduceError> {
        let client = self.client();
        let acknowledgement = loop {
            match client.kafka.send_result(to_kafka(&record)).map_err(|(error, _)| error) {
                Ok(acknowledgement) => break acknowledgement,
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(self.failed(client, record.topic, error)),
            }
        };
        let delivery = tokio::select! {
            acknowledged = acknowledgement => match acknowledged {
                Ok(delivery) => delivery.map_err(|(error, _)| error),
                Err(_) => Err(KafkaError::Canceled),
            },
            () = client.stranded.cancelled() => Err(KafkaError::MessageProduction(RDKafkaErrorCode::AllBrokersDown)),
        };
        match delivery {
            Ok(delivery) => {
                Ok(Origin { topic: record.topic.into(), partition: delivery.partition, offset: delivery.offset })
            }
            Err(error) => Err(self.failed(client, record.topic, error)),
        }
    }

    fn client(&self) -> Arc<Client> {
        let current = || Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner));
        let client = current();
        match client.defect() {
            None => client,
            Some(defect) => {
                self.replace(client, defect);
                current()
            }
        }
    }

    fn failed(&self, client: Arc<Client>, topic: String, error: KafkaError) -> ProduceError {
        if let Some(defect) = client.defect() {
            self.replace(client, defect);
        }
        classify(topic, error)
    }

    fn replace(&self, broken: Arc<Client>, defect: &str) {
        let mut current = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, &broken) {
            return;
        }
        match Client::connect(&self.config) {
            Ok(client) => {
                tracing::warn!("the Kafka producer {defect}; going on with a new one");
                let replaced = std::mem::replace(&mut *current, client);
                // Dropping a client waits for its thread; this one may be the last that holds it.
                std::thread::spawn(move || drop((replaced, broken)));
            }
            Err(error) => tracing::error!(%error, "the Kafka producer cannot be replaced"),
        }
    }

    /// Waits until everything handed over has been acknowledged or has failed, at most `timeout`.
    ///
    /// # Errors
    /// When `timeout` is over first.
    pub async fn flush(&self, timeout: Duration) -> Result<(), ProduceError> {
        let client = self.client();
        let flushed = tokio::task::spawn_blocking(move || client.kafka.flush(timeout)).await;
        flushed.unwrap_or(Err(KafkaError::Canceled)).map_err(ProduceError::Client)
    }
}

fn client_config(kafka: &KafkaConfig) -> Result<ClientConfig, ConfigError> {
    let mut config = kafka.client()?;
    for (name, value) in DEFAULTS {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    report_statistics(&mut config);
    Ok(config)
}

impl Client {
    fn connect(config: &ClientConfig) -> Result<Arc<Client>, ProduceError> {
        let (kafka, stranded) = QuietContext::connect(config).map_err(ProduceError::Client)?;
        Ok(Arc::new(Client { kafka, stranded }))
    }

    /// Why only a new client helps.
    fn defect(&self) -> Option<&'static str> {
        // Say the broker no longer knows the idempotent producer's sequence, since it lost its data: librdkafka refuses
        // everything for ever.
        if self.kafka.client().fatal_error().is_some() {
            return Some("had a fatal error");
        }
        self.stranded.is_cancelled().then_some("was told of no brokers and knows none any more")
    }
}

fn to_kafka(record: &OutgoingRecord) -> FutureRecord<'_, [u8], [u8]> {
    let headers =
        record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, header| {
            headers.insert(Header { key: &header.0, value: header.1.as_deref() })
        });
    FutureRecord {
        topic: &record.topic,
        partition: record.partition,
        payload: record.value.as_deref(),
        key: record.key.as_deref(),
        timestamp: None,
        headers: Some(headers),
    }
}

fn classify(topic: String, source: KafkaError) -> ProduceError {
    use RDKafkaErrorCode as Code;
    match source.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => {
            ProduceError::TooLarge { topic, source }
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic) => {
            ProduceError::UnknownTopic { topic, source }
        }
        _ => ProduceError::NotAcknowledged { topic, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What librdkafka makes of these settings and ours.
    fn effective(settings: &[(&str, &str)], name: &str) -> String {
        let kafka =
            settings.iter().fold(KafkaConfig::new("127.0.0.1:9"), |kafka, (name, value)| kafka.set(name, value));
        client_config(&kafka).unwrap().create_native_config().unwrap().get(name).unwrap()
    }

    #[test]
    fn a_producer_is_idempotent_and_waits_for_all_replicas() {
        assert_eq!(effective(&[], "enable.idempotence"), "true");
        // All, in librdkafka's number for it.
        assert_eq!(effective(&[], "acks"), "-1");
        assert_eq!(effective(&[], "allow.auto.create.topics"), "false");
    }

    #[test]
    fn a_setting_of_the_command_line_is_honoured_and_one_that_breaks_idempotence_refused() {
        assert_eq!(effective(&[("linger.ms", "5"), ("message.timeout.ms", "1000")], "linger.ms"), "5");
        let weaker = KafkaConfig::new("127.0.0.1:9").set("acks", "1");
        let refused = Producer::new(&weaker).err().map(|error| crate::error::Chain(&error).to_string());
        assert!(refused.as_ref().is_some_and(|error| error.contains("idempotence")), "{refused:?}");
    }
}
