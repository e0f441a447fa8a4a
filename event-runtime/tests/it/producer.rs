//! A record is sent when it is acknowledged; what a caller can do about a failure is told by its kind.

use std::time::Duration;

use event_runtime::{
    HeaderName,
    producer::{OutgoingRecord, ProduceError, Producer},
};
use shared_events::EventId;
use test_support::records;

use crate::stage::{PATIENCE, TOPIC, TestKafka};

fn record(key: &str) -> OutgoingRecord {
    OutgoingRecord { topic: TOPIC.name.to_owned(), key: Some(key.into()), ..OutgoingRecord::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_arrives_as_it_was_handed_over() {
    let kafka = TestKafka::start().await;
    let producer = Producer::new(&kafka.config()).unwrap();
    let key = EventId::new().to_string();
    let headers: Vec<(HeaderName, _)> = vec![
        ("twice".into(), Some(b"1".to_vec())),
        ("twice".into(), Some(b"\xff\x00".to_vec())),
        ("nothing".into(), None),
        ("empty".into(), Some(Vec::new())),
    ];
    let sent = OutgoingRecord { partition: Some(2), headers: headers.clone(), ..record(&key) };
    let origin = producer.send(sent).await.unwrap();
    assert_eq!((&*origin.topic, origin.partition), (TOPIC.name, 2));

    let wanted = origin.clone();
    let records = records::read_until(&kafka.config(), TOPIC.name, PATIENCE, move |records| {
        records.iter().any(|record| record.origin == wanted)
    })
    .await;
    let record = records.iter().find(|record| record.origin == origin).unwrap();
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(key.as_bytes()), None));
    assert_eq!(record.headers, headers);
}

/// Where Java's client puts these keys on four partitions (murmur2, as its own test vectors have it): records of Rust
/// and Java producers with one key must meet in one partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_to_the_partition_that_other_clients_choose() {
    let kafka = TestKafka::start().await;
    let producer = Producer::new(&kafka.config()).unwrap();
    // Apache Kafka, UtilsTest.testMurmur2: "21" → −973932308, "foobar" → −790332482, "a-little-bit-long-string" →
    // −985981536; the partition is the hash without its sign bit, modulo the number of partitions.
    for (key, hash) in [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
    {
        let origin = producer.send(record(key)).await.unwrap();
        assert_eq!(origin.partition, (hash & 0x7fff_ffff) % TOPIC.partitions, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_is_told_from_one_that_may_pass() {
    let kafka = TestKafka::start().await;
    let producer = Producer::new(&kafka.config()).unwrap();
    let huge = OutgoingRecord { value: Some(vec![0; 2_000_000]), ..record("a") };
    let error = producer.send(huge).await.unwrap_err();
    assert!(matches!(&error, ProduceError::TooLarge { topic, .. } if topic == TOPIC.name), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_not_made() {
    let kafka = TestKafka::start().await;
    let mut config = kafka.config();
    config.settings.push("topic.metadata.propagation.max.ms=100".to_owned());
    let producer = Producer::new(&config).unwrap();
    for _ in 0..2 {
        let misspelt = OutgoingRecord { topic: "storage-tets".to_owned(), ..record("a") };
        let error = producer.send(misspelt).await.unwrap_err();
        assert!(matches!(error, ProduceError::UnknownTopic { .. }), "{error:?}");
        assert!(error.to_string().contains("storage-tets"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_an_error_in_time_and_works_again_when_it_is_back() {
    let kafka = TestKafka::embedded();
    let mut config = kafka.config();
    config.settings.push("message.timeout.ms=500".to_owned());
    let producer = Producer::new(&config).unwrap();
    let sent = async || producer.send(record("a")).await.map_err(|error| error.to_string());
    // The first connection may take longer than that.
    test_support::eventually(PATIENCE, "first record", sent).await;
    kafka.cluster().broker_down(1).unwrap();
    let error = producer.send(record("a")).await.unwrap_err();
    assert!(matches!(error, ProduceError::NotAcknowledged { .. }), "{error:?}");
    kafka.cluster().broker_up(1).unwrap();
    test_support::eventually(PATIENCE, "record after the outage", sent).await;
    producer.flush(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_the_caller_wait_and_loses_nothing() {
    let kafka = TestKafka::start().await;
    let mut config = kafka.config();
    config.settings.push("queue.buffering.max.messages=2".to_owned());
    let producer = Producer::new(&config).unwrap();
    let sends = (0..50).map(|number| {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send(record(&number.to_string())).await })
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.unwrap().unwrap();
    }
}

#[test]
fn a_setting_that_kafka_does_not_know_is_an_error_at_once() {
    let kafka = event_runtime::config::KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),
        settings: vec!["no.such.setting=1".to_owned()],
    };
    let Err(error) = Producer::new(&kafka) else { panic!("accepted") };
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("no.such.setting"), "{text}");
}

/// librdkafka refuses everything for ever after a fatal error; only a new client helps.
#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_costs_the_records_in_hand_and_not_the_producer() {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    let kafka = TestKafka::embedded();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED];
    kafka.cluster().request_errors(RDKafkaApiKey::InitProducerId, &refused);
    let producer = Producer::new(&kafka.config()).unwrap();
    let error = producer.send(record("a")).await.unwrap_err();
    assert!(matches!(error, ProduceError::NotAcknowledged { .. }), "{error:?}");
    let sent = async || producer.send(record("a")).await.map_err(|error| error.to_string());
    test_support::eventually(PATIENCE, "record by a new client", sent).await;
}
