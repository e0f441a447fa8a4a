//! `lag`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use event_runtime::config::KafkaConfig;
use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::Value;
use test_support::{MockKafka, records::publish_raw};

use crate::{command, eventctl, words};

/// Commits as the group's consumer would.
pub fn commit(kafka: &KafkaConfig, group: &str, topic: &str, partition: i32, offset: i64) {
    let mut client = kafka.client().unwrap();
    let consumer: BaseConsumer = client.set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// Writes five records to one partition of orders, of which payment-service has committed so many; the partition.
pub async fn five_orders_of_which_are_committed(kafka: &KafkaConfig, committed: i64) -> i32 {
    let mut origin = None;
    for _ in 0..5 {
        origin = Some(publish_raw(kafka, "orders", "k", &[], b"{}").await);
    }
    let partition = origin.unwrap().partition;
    commit(kafka, "payment-service", "orders", partition, committed);
    partition
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_what_was_written_and_not_committed() {
    let kafka = MockKafka::start(1);
    let config = kafka.config();
    let partition = five_orders_of_which_are_committed(&config, 3).await;
    let lag = ["lag", "-b", &kafka.addresses(), "--group", "payment-service"];

    let ran = eventctl(&lag).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG OLDEST");
    assert!(
        lines.iter().any(|line| line.starts_with(&format!("payment-service orders {partition} 3 5 2 "))),
        "{lines:?}"
    );
    assert!(lines.last().unwrap().starts_with("TOTAL 2 "), "{lines:?}");

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
async fn the_oldest_record_that_waits_is_the_first_one_not_committed() {
    let kafka = MockKafka::start(1);
    let config = kafka.config();
    let mut origin = publish_raw(&config, "orders", "k", &[], b"{}").await;
    let handled = Timestamp::now();
    // Later by the clock that the broker's milliseconds can show.
    while Timestamp::now().duration_since(handled) < SignedDuration::from_millis(20) {
        std::thread::yield_now();
    }
    for _ in 0..2 {
        origin = publish_raw(&config, "orders", "k", &[], b"{}").await;
    }
    commit(&config, "payment-service", "orders", origin.partition, 1);

    let ran = eventctl(&["lag", "-b", &kafka.addresses(), "--group", "payment-service", "-o", "jsonl"]).await;
    let rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (waiting, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["lag"] != 0);
    assert_eq!(waiting.len(), 1, "{rows:?}");
    let oldest: Timestamp = waiting[0]["oldest"].as_str().unwrap().parse().unwrap();
    assert!(oldest > handled && oldest < Timestamp::now(), "{oldest} is not after {handled}");
    assert!(waiting[0]["oldestSeconds"].as_f64().unwrap() < 20.0, "{waiting:?}");
    assert!(others.iter().all(|row| row["oldest"].is_null()), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_the_lag_again_and_again() {
    let kafka = MockKafka::start(1);
    let mut child = command(&["lag", "-b", &kafka.addresses(), "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let watched = tokio::task::spawn_blocking(move || {
        let headers = lines.map(Result::unwrap).filter(|line| line.starts_with("GROUP"));
        headers.take(2).count()
    });
    let shown = tokio::time::timeout(Duration::from_secs(30), watched).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(shown.expect("two tables in half a minute").unwrap(), 2);
    assert_eq!(eventctl(&["lag", "--watch", "--max", "0"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_declared_is_refused_with_those_that_are() {
    let ran = eventctl(&["lag", "--group", "paymentservice"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("the groups are: order-service, payment-service"), "{ran:?}");
}
