//! Writing and reading a topic as an outsider does, on the embedded broker or a real one.

use std::time::{Duration, Instant};

use event_runtime::{Origin, Record, config::KafkaConfig};
use jiff::Timestamp;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use shared_events::{CorrelationId, Envelope, Event};

const SOURCE: &str = "test";
const PATIENCE: Duration = Duration::from_secs(20);

/// Publishes `event` with an envelope of its own, which is returned.
pub async fn publish<E: Event>(kafka: &KafkaConfig, event: &E) -> Envelope {
    let mut envelope = Envelope::new(event, SOURCE, Timestamp::now());
    envelope.correlation_id = Some(CorrelationId::new());
    publish_as(kafka, event, &envelope).await;
    envelope
}

/// Publishes `event` under `envelope`: twice with the same one makes a duplicate.
pub async fn publish_as<E: Event>(kafka: &KafkaConfig, event: &E, envelope: &Envelope) -> Origin {
    let value = serde_json::to_vec(event).expect("events are plain data");
    let headers: Vec<(&str, String)> = envelope.to_headers();
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    publish_raw(kafka, E::TOPIC.name, &event.key(), &headers, &value).await
}

/// Publishes any bytes: for poison records.
pub async fn publish_raw(
    kafka: &KafkaConfig,
    topic: &str,
    key: &str,
    headers: &[(&str, &[u8])],
    value: &[u8],
) -> Origin {
    let mut client = client(kafka);
    client.set("linger.ms", "0");
    let producer: FutureProducer = client.create().expect("a producer can be made of these settings");
    let mut with = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in headers {
        with = with.insert(Header { key, value: Some(*value) });
    }
    let record = FutureRecord::to(topic).key(key).payload(value).headers(with);
    let sent =
        producer.send(record, PATIENCE).await.unwrap_or_else(|(error, _)| panic!("{topic} takes no record: {error}"));
    Origin { topic: topic.into(), partition: sent.partition, offset: sent.offset }
}

/// Reads `topic` from its start until `enough` holds of all that was read, and returns that.
///
/// # Panics
/// When `deadline` passes first; the message lists the event types that were read.
pub async fn read_until(
    kafka: &KafkaConfig,
    topic: &str,
    deadline: Duration,
    enough: impl Fn(&[Record]) -> bool + Send + 'static,
) -> Vec<Record> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(&kafka, &topic, deadline, enough))
        .await
        .expect("the reader ended well")
}

/// Reads the events of type `E` on its topic until there are `count`, for up to `deadline`.
///
/// # Panics
/// When `deadline` passes first.
pub async fn read_events<E: Event>(kafka: &KafkaConfig, count: usize, deadline: Duration) -> Vec<(Envelope, E)> {
    let enough = move |records: &[Record]| records.iter().filter(|record| type_of(record) == E::TYPE).count() >= count;
    let records = read_until(kafka, E::TOPIC.name, deadline, enough).await;
    records.iter().filter(|record| type_of(record) == E::TYPE).map(decode).collect()
}

/// The envelope and the event of a record.
pub fn decode<E: Event>(record: &Record) -> (Envelope, E) {
    let envelope = record.envelope().unwrap_or_else(|error| panic!("{}: {error}", record.origin));
    let value = record.value.as_deref().unwrap_or_else(|| panic!("{} is a tombstone", record.origin));
    let event = serde_json::from_slice(value).unwrap_or_else(|error| panic!("{}: {error}", record.origin));
    (envelope, event)
}

/// The event type a record says it has, or nothing.
pub fn type_of(record: &Record) -> &str {
    record.header(shared_events::header::TYPE).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

fn read_blocking(
    kafka: &KafkaConfig,
    topic: &str,
    deadline: Duration,
    enough: impl Fn(&[Record]) -> bool,
) -> Vec<Record> {
    let end = Instant::now() + deadline;
    let consumer = assigned(kafka, topic);
    let mut records = Vec::new();
    while !enough(&records) {
        if Instant::now() >= end {
            let types: Vec<&str> = records.iter().map(type_of).collect();
            panic!("not enough on {topic} within {deadline:?}; read: {types:?}");
        }
        // An error is a broker that is away for a moment: the deadline decides.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            records.push(owned(&message));
        }
    }
    records
}

/// A consumer on all partitions from their start, in no group that anybody else uses.
fn assigned(kafka: &KafkaConfig, topic: &str) -> BaseConsumer {
    let mut client = client(kafka);
    client.set("group.id", format!("test-reader-{}", CorrelationId::new())).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.create().expect("a consumer can be made of these settings");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("beginning is an offset");
    }
    consumer.assign(&partitions).expect("partitions that exist can be assigned");
    consumer
}

fn client(kafka: &KafkaConfig) -> rdkafka::ClientConfig {
    kafka.client().expect("the settings are pairs")
}

fn owned(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned().into(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        origin: Origin { topic: message.topic().into(), partition: message.partition(), offset: message.offset() },
        timestamp: message.timestamp().to_millis().and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
