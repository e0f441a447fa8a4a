//! `lag`.

use event_runtime::config::KafkaConfig;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::Value;
use test_support::{MockKafka, records::publish_raw};

use crate::{eventctl, words};

/// Commits as the group's consumer would.
pub fn commit(kafka: &KafkaConfig, group: &str, topic: &str, partition: i32, offset: i64) {
    let mut client = kafka.client().unwrap();
    let consumer: BaseConsumer = client.set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_what_was_written_and_not_committed() {
    let kafka = MockKafka::start(1);
    let config = kafka.config();
    let mut origin = None;
    for _ in 0..5 {
        origin = Some(publish_raw(&config, "orders", "k", &[], b"{}").await);
    }
    let partition = origin.unwrap().partition;
    commit(&config, "payment-service", "orders", partition, 3);
    let lag = ["lag", "-b", &kafka.addresses(), "--group", "payment-service"];

    let ran = eventctl(&lag).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG");
    assert!(lines.contains(&format!("payment-service orders {partition} 3 5 2")), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "TOTAL 2");

    let ran = eventctl(&[&lag[..], &["--max", "2"]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = eventctl(&[&lag[..], &["--max", "1"]].concat()).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("2 records wait, more than 1"), "{ran:?}");

    // The other groups on `orders` have committed nothing: all five wait for each.
    let ran = eventctl(&["lag", "-b", &kafka.addresses(), "-o", "json"]).await;
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let of_email = document["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["group"] == "email-service" && row["partition"] == partition);
    let of_email = of_email.unwrap();
    assert_eq!((of_email["currentOffset"].as_i64(), of_email["lag"].as_i64()), (None, Some(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_declared_is_refused_with_those_that_are() {
    let ran = eventctl(&["lag", "--group", "paymentservice"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("the groups are: order-service, payment-service"), "{ran:?}");
}
