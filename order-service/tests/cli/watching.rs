//! `watch`, on an embedded broker.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use event_runtime::config::KafkaConfig;
use serde_json::Value;
use shared_events::{MailSent, OrderDeadlineReached, OrderId};
use test_support::{MockKafka, records::publish};

use crate::{Ran, order_service, words};

async fn watch(kafka: &KafkaConfig, more: &[&str]) -> Ran {
    let mut arguments: Vec<String> = vec!["watch".to_owned(), "-b".to_owned(), kafka.brokers.clone()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let run = move || order_service(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn mail(order_id: OrderId) -> MailSent {
    MailSent { order_id, about: "order.completed".to_owned(), message_id: "m-1".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_shown_in_the_order_of_time_and_exit_ends_there() {
    let kafka = MockKafka::start(2);
    let config = kafka.config();
    let (first, second) = (OrderId::new(), OrderId::new());
    for order in [first, second] {
        publish(&config, &OrderDeadlineReached { order_id: order }).await;
        publish(&config, &mail(order)).await;
    }
    let ran = watch(&config, &["--exit"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "TIME (UTC) TOPIC[PARTITION]@OFFSET TYPE KEY SOURCE DATA");
    let seen: Vec<(&str, String)> = lines[1..]
        .iter()
        .map(|line| {
            let cells: Vec<&str> = line.split(' ').collect();
            (cells[2], cells[3].to_owned())
        })
        .collect();
    let expected =
        [first, second].map(|order| [("order.deadline-reached", order.to_string()), ("mail.sent", order.to_string())]);
    assert_eq!(seen, expected.concat());
    assert!(lines[2].ends_with("test about=order.completed messageId=m-1"), "{lines:?}");

    let ran = watch(&config, &["--exit", "--order", &second.to_string(), "--topic", "mails", "-o", "jsonl"]).await;
    let rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 1, "{ran:?}");
    assert_eq!((rows[0]["topic"].as_str(), rows[0]["key"].as_str()), (Some("mails"), Some(&*second.to_string())));
    assert_eq!((rows[0]["type"].as_str(), rows[0]["data"]["messageId"].as_str()), (Some("mail.sent"), Some("m-1")));

    let ran = watch(&config, &["--exit", "-n", "3"]).await;
    assert_eq!(ran.stdout.lines().count(), 4, "{ran:?}");
    let ran = watch(&config, &["--exit", "--from", "@-10m", "-o", "jsonl"]).await;
    assert_eq!(ran.stdout.lines().count(), 4, "{ran:?}");
    let ran = watch(&config, &["--exit", "--from", "end"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shown_as_they_come() {
    let kafka = MockKafka::start(1);
    let config = kafka.config();
    let before = OrderId::new();
    publish(&config, &mail(before)).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(["watch", "-b", &config.brokers, "--from", "-1", "-n", "2", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (first, mut lines) = first.await.unwrap();
    assert!(first.contains(&before.to_string()), "{first}");
    // Now it is certainly reading.
    let after = OrderId::new();
    publish(&config, &mail(after)).await;
    let second = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
    assert!(second.contains(&after.to_string()), "{second}");
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "two events were asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_said() {
    let ran = watch(&KafkaConfig::new("127.0.0.1:9"), &["--exit"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no Kafka broker answers at 127.0.0.1:9"), "{ran:?}");
    let empty = MockKafka::empty(1);
    let ran = watch(&empty.config(), &["--exit"]).await;
    assert!(ran.stderr.contains("none of the order system's topics"), "{ran:?}");
    let ran = watch(&empty.config(), &["--exit", "--topic", "ordres"]).await;
    assert!(ran.stderr.contains("topic \"ordres\" does not exist"), "{ran:?}");
    let ran = watch(&empty.config(), &["--from", "yesterday"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("@-10m for ten minutes ago"), "{ran:?}");
}
