//! `chaos`.

use std::time::Duration;

use axum::{Json, Router, http::StatusCode};
use event_runtime::{Record, config::KafkaConfig, consumer::dead_letter};
use serde_json::{Value, json};
use shared_events::{Envelope, MailSent, OrderId, header};
use test_support::{
    MockKafka,
    records::{publish, publish_raw, read_until},
};
use tokio::net::TcpListener;

use crate::{Ran, eventctl, words};

const SOON: Duration = Duration::from_secs(30);

/// The fake payment gateway, for as long as the test's runtime lives; its URL.
async fn fake_gateway() -> String {
    let config = payment_gateway_fake::Config { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
    let gateway = payment_gateway_fake::bind(config).await.unwrap();
    let url = format!("http://{}", gateway.address());
    tokio::spawn(gateway.run(std::future::pending()));
    url
}

/// A gateway that knows no faults, as a real one; its URL.
async fn real_gateway() -> String {
    let unknown = async || (StatusCode::NOT_FOUND, Json(json!({"error": {"type": "invalid_request_error"}})));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(unknown)).await });
    url
}

async fn chaos(kafka: &MockKafka, gateway: &str, arguments: &[&str]) -> Ran {
    let target = ["-b", &kafka.addresses(), "--gateway-url", gateway];
    eventctl(&[&["chaos"], arguments, &target].concat()).await
}

/// Everything on `mails`, once there are `count` records.
async fn mails(kafka: &KafkaConfig, count: usize) -> Vec<Record> {
    read_until(kafka, "mails", SOON, move |records| records.len() >= count).await
}

async fn mail(kafka: &KafkaConfig, order_id: OrderId) -> Envelope {
    let mail = MailSent { order_id, about: "order.completed".to_owned(), message_id: "m-1".to_owned() };
    publish(kafka, &mail).await
}

fn ids(records: &[Record]) -> Vec<String> {
    let id = |record: &Record| Some(String::from_utf8(record.header(header::ID)?.to_vec()).unwrap());
    records.iter().filter_map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_the_same_bytes_under_the_same_event_ids() {
    let (kafka, gateway) = (MockKafka::start(1), fake_gateway().await);
    let config = kafka.config();
    let order = OrderId::new();
    let first = mail(&config, order).await;
    let second = mail(&config, order).await;
    publish_raw(&config, "mails", "no event", &[], b"no event id").await;

    let ran = chaos(&kafka, &gateway, &["duplicates"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(words(&ran.stdout).contains(&"mails 2 2".to_owned()), "{ran:?}");
    assert!(ran.stderr.contains("this is the plan") && !ran.stderr.contains("CHAOS"), "{ran:?}");
    assert_eq!(mails(&config, 3).await.len(), 3, "a plan writes nothing");

    let ran = chaos(&kafka, &gateway, &["duplicates", "--topic", "mails", "--execute", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("CHAOS: 2 events are delivered a second time"), "{ran:?}");
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said, json!({"executed": true, "topics": [{"topic": "mails", "events": 2, "copies": 2}]}));
    let records = mails(&config, 5).await;
    let of_order: Vec<Record> =
        records.into_iter().filter(|record| record.key.as_deref() == Some(order.to_string().as_bytes())).collect();
    let (one, two) = (first.id.to_string(), second.id.to_string());
    assert_eq!(ids(&of_order), [&*one, &*two, &*one, &*two], "in their order, in their partition");
    assert_eq!(of_order[0].value, of_order[2].value);
    assert_eq!(of_order[0].headers[..], of_order[2].headers[..of_order[0].headers.len()]);

    // What is a copy is not copied, and each second is each second.
    let ran = chaos(&kafka, &gateway, &["duplicates", "--every", "2", "--execute", "-o", "jsonl"]).await;
    assert!(ran.stdout.contains(r#"{"topic":"mails","events":2,"copies":1}"#), "{ran:?}");
    assert_eq!(ids(&mails(&config, 6).await).iter().filter(|id| **id == two).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_what_no_consumer_can_read() {
    let (kafka, gateway) = (MockKafka::start(1), fake_gateway().await);
    let poison = ["poison", "--count", "3", "--key", "an order"];
    let ran = chaos(&kafka, &gateway, &poison).await;
    assert!(ran.stdout.contains("orders.payment-service.dlt, orders.inventory-service.dlt"), "{ran:?}");
    let ran = chaos(&kafka, &gateway, &[&poison[..], &["--execute"]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("CHAOS: 3 records that nobody can read"), "{ran:?}");

    let records = read_until(&kafka.config(), "orders", SOON, |records| records.len() >= 3).await;
    assert_eq!(records.len(), 3, "the plan wrote nothing: {records:#?}");
    assert!(records.iter().all(|record| record.key.as_deref() == Some(b"an order")));
    for record in records {
        let event: Result<Value, _> = serde_json::from_slice(record.value.as_deref().unwrap());
        assert!(record.envelope().is_err() || event.is_err(), "{record:?} can be read");
        assert!(dead_letter::DeadLetter::read(&record).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_faults_add_up_and_end() {
    let (kafka, gateway) = (MockKafka::start(1), fake_gateway().await);
    let faults = async || reqwest::get(format!("{gateway}/faults")).await.unwrap().json::<Value>().await.unwrap();
    let ran = chaos(&kafka, &gateway, &["gateway-failures", "0.3"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(faults().await, json!({"mode": "up"}), "a plan changes nothing");

    chaos(&kafka, &gateway, &["gateway-failures", "0.3", "--execute"]).await;
    let ran = chaos(&kafka, &gateway, &["delays", "20ms", "--execute", "-o", "json"]).await;
    assert_eq!(faults().await, json!({"mode": "up", "failureRate": 0.3, "delayMs": 20}), "{ran:?}");
    chaos(&kafka, &gateway, &["gateway-failures", "0", "--execute"]).await;
    chaos(&kafka, &gateway, &["delays", "0s", "--execute"]).await;
    assert_eq!(faults().await, json!({"mode": "up"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_test_stack_is_not_broken() {
    let kafka = MockKafka::start(1);
    mail(&kafka.config(), OrderId::new()).await;
    let duplicates = ["duplicates", "--execute"];
    let nobody = "http://127.0.0.1:1";
    let somebody_else = real_gateway().await;
    for (gateway, why) in [(nobody, "there is no stack to break"), (&*somebody_else, "is not the fake payment gateway")]
    {
        let ran = chaos(&kafka, gateway, &duplicates).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(why) && ran.stderr.contains("--gateway-url"), "{ran:?}");
    }
    assert_eq!(mails(&kafka.config(), 1).await.len(), 1, "nothing was written");

    let gateway = fake_gateway().await;
    let ran = eventctl(&["chaos", "duplicates", "-b", "127.0.0.1:1", "--gateway-url", &gateway]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no Kafka broker answers at 127.0.0.1:1"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_cannot_be_are_refused_with_what_can() {
    for (arguments, code, why) in [
        (&["earthquake"][..], 2, "unrecognized subcommand 'earthquake'"),
        (&["gateway-failures", "1.5"], 2, "a number from 0 to 1"),
        (&["delays", "soon"], 2, "write a time such as 500ms"),
        (&["poison", "--count", "51"], 2, "51 is not in 1..=50"),
        (&["poison", "--topic", "order"], 2, "the topics that carry events are: orders, payments"),
        (&["duplicates", "--every", "0"], 2, "0 is not in 1.."),
        (&["duplicates", "--from", "begin"], 2, "is no position"),
        (&["broker-pause"], 1, "cargo run -- --chaos broker-pause"),
        (&["crash"], 1, "cargo run -- --chaos crash"),
        (&["drop-connection"], 1, "cargo run -- --chaos drop-connection"),
    ] {
        let ran = eventctl(&[&["chaos"], arguments].concat()).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(why), "{arguments:?}: {ran:?}");
    }
}
