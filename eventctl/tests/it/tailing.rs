//! `topics` and `tail`.

use serde_json::Value;
use shared_events::{MailSent, OrderId, header, topics::dead_letter_topic};
use test_support::{
    MockKafka,
    records::{publish, publish_raw},
};

use crate::{eventctl, words};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_with_what_is_wrong_with_them() {
    let kafka = MockKafka::empty(1);
    kafka.create("orders", 6);
    kafka.create("payments", 2);
    kafka.create("somebody-elses", 1);
    publish_raw(&kafka.config(), "orders", "k", &[], b"{}").await;
    let ran = eventctl(&["topics", "list", "-b", &kafka.addresses()]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "TOPIC PARTITIONS RECORDS RETENTION NOTE");
    for line in [
        "orders 6 1 7d",
        "payments 2 0 7d declared with 6 partitions",
        "somebody-elses 1 0 - not declared",
        "mails - - 7d missing: eventctl topics apply",
        "orders.payment-service.dlt - - 28d missing: eventctl topics apply",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_what_is_there_changes_nothing() {
    let kafka = MockKafka::start(1);
    let ran = eventctl(&["topics", "apply", "-b", &kafka.addresses()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stderr.contains("0 were missing"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_records_with_their_headers() {
    let kafka = MockKafka::start(1);
    let config = kafka.config();
    let order_id = OrderId::new();
    let mail = MailSent { order_id, about: "order.completed".to_owned(), message_id: "m-1".to_owned() };
    let envelope = publish(&config, &mail).await;
    publish_raw(&config, "mails", "another", &[], b"not json").await;
    let key = order_id.to_string();
    let tail = ["tail", "mails", "-b", &kafka.addresses(), "--from", "start", "--exit"];

    let ran = eventctl(&tail).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 3), "{ran:?}");
    let ran = eventctl(&[&tail[..], &["--key", &key, "-o", "json"]].concat()).await;
    let record: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(record["headers"][header::ID], envelope.id.to_string());
    assert_eq!((record["key"].as_str(), record["data"]["about"].as_str()), (Some(&*key), Some("order.completed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letters_numbers_are_readable() {
    let kafka = MockKafka::start(1);
    let topic = dead_letter_topic("orders", "payment-service");
    let headers: [(&str, &[u8]); 4] = [
        ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
        ("kafka_dlt-original-offset", &42_i64.to_be_bytes()),
        ("kafka_dlt-original-consumer-group", b"payment-service"),
        ("kafka_dlt-exception-message", b"gateway said 500"),
    ];
    publish_raw(&kafka.config(), &topic, "k", &headers, b"{}").await;
    let ran = eventctl(&["tail", &topic, "-b", &kafka.addresses(), "--exit", "-o", "jsonl"]).await;
    let record: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(record["headers"]["kafka_dlt-original-partition"], "3");
    assert_eq!(record["headers"]["kafka_dlt-original-offset"], "42");
    assert_eq!(record["deadLetter"]["group"], "payment-service");
    assert_eq!(record["deadLetter"]["error"], "gateway said 500");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said() {
    let kafka = MockKafka::start(1);
    let ran = eventctl(&["tail", "mail", "-b", &kafka.addresses(), "--exit"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("topic \"mail\" does not exist; there are: inventory, "), "{ran:?}");
    let ran = eventctl(&["tail", "-b", &kafka.addresses()]).await;
    assert_eq!(ran.code, 2);
    let ran = eventctl(&["tail", "mails", "-b", &kafka.addresses(), "-X", "no.such.key=1"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no.such.key"), "{ran:?}");
}
