//! The whole service: records in, records out, on an embedded broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use event_runtime::{
    config::{KafkaConfig, ServiceConfig},
    producer::{OutgoingRecord, Producer},
};
use jiff::{SignedDuration, Timestamp};
use payment_service::{Config, domain::EXPIRED};
use serde_json::{Value, json};
use shared_events::{Envelope, OrderCreated, OrderId, PaymentFailed, PaymentRefunded, PaymentSucceeded};
use test_support::{
    MockKafka, TempDatabase, eventually,
    records::{decode, publish, publish_as, read_events, read_until, type_of},
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::support::{FakeGateway, cancelled, order};

const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(kafka: &KafkaConfig, database: &TempDatabase, gateway: &FakeGateway) -> Running {
        let service = ServiceConfig::new(kafka.clone(), database.url()).listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let service = payment_service::bind(Config::new(service, gateway.url())).await.unwrap();
        let address = service.address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.run(async {
            stopped.await.ok();
        }));
        let running = Running { address, stop, task };
        eventually(PATIENCE, "readiness", async || match running.get("/ready").await {
            (200, _) => Ok(()),
            other => Err(other),
        })
        .await;
        running
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_gets_its_answer() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    let mut expected = BTreeMap::new();
    for (token, answer, attempt) in [
        ("tok_visa", "payment.succeeded", 1),
        ("tok_chargeDeclined", "payment.failed", 1),
        ("tok_flaky", "payment.succeeded", 3),
        ("tok_timeout", "payment.succeeded", 2),
    ] {
        let order = order(token);
        publish(&kafka.config(), &order).await;
        expected.insert(order.order_id.to_string(), (answer.to_owned(), attempt));
    }
    let records = read_until(&kafka.config(), "payments", PATIENCE, |records| records.len() >= 4).await;
    let answers: BTreeMap<_, _> = records
        .iter()
        .map(|record| {
            let envelope = record.envelope().unwrap();
            assert_eq!(envelope.source, "payment-service");
            assert!(envelope.causation_id.is_some() && envelope.correlation_id.is_some());
            let order = String::from_utf8(record.key.clone().unwrap()).unwrap();
            (order, (envelope.event_type, envelope.attempt.unwrap()))
        })
        .collect();
    assert_eq!(answers, expected);
    assert_eq!(gateway.ledger().await.len(), 3);

    let (status, list) = service.get("/payments?state=succeeded&limit=2").await;
    assert_eq!((status, list["payments"].as_array().unwrap().len()), (200, 2));
    let next = list["next"].as_str().unwrap();
    let (_, rest) = service.get(&format!("/payments?state=succeeded&limit=2&after={next}")).await;
    assert_eq!((rest["payments"].as_array().unwrap().len(), &rest["next"]), (1, &json!(null)));
    let id = list["payments"][0]["orderId"].as_str().unwrap();
    let (status, payment) = service.get(&format!("/payments/{id}")).await;
    assert_eq!((status, &payment["state"], &payment["amount"]["minor"]), (200, &json!("succeeded"), &json!(1250)));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_up_says_why() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    assert_eq!(service.get(&format!("/payments/{}", OrderId::new())).await.0, 404);
    assert_eq!(service.get("/payments/nonsense").await.0, 404);
    for path in ["/payments?state=paid", "/payments?limit=0", "/payments?limit=1001"] {
        let (status, problem) = service.get(path).await;
        assert_eq!(status, 400, "{path}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{path}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_of_every_event_charge_and_refund_once() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    let created = order("tok_visa");
    let cancelled = cancelled(&created);
    let envelope = Envelope::new(&created, "order-service", Timestamp::now());
    let cancellation = Envelope::new(&cancelled, "order-service", Timestamp::now());
    for _ in 0..3 {
        publish_as(&kafka.config(), &created, &envelope).await;
    }
    for _ in 0..3 {
        publish_as(&kafka.config(), &cancelled, &cancellation).await;
        publish_as(&kafka.config(), &created, &envelope).await;
    }
    let last = order("tok_visa");
    read_events::<PaymentRefunded>(&kafka.config(), 1, PATIENCE).await;
    publish(&kafka.config(), &last).await;
    let records = read_until(&kafka.config(), "payments", PATIENCE, |records| records.len() >= 3).await;
    let mut types: Vec<_> = records.iter().map(type_of).collect();
    types.sort_unstable();
    assert_eq!(types, ["payment.refunded", "payment.succeeded", "payment.succeeded"]);
    assert_eq!(gateway.charges_of(created.order_id).await, ["refunded"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_gateway_uses_up_no_attempt() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    gateway.faults(json!({"mode": "down"})).await;
    let expired = || OrderCreated { expires_at: Timestamp::now() - SignedDuration::from_secs(1), ..order("tok_visa") };
    for _ in 0..20 {
        publish(&kafka.config(), &order("tok_visa")).await;
        // Refused without the gateway: that this succeeds must not count as the end of the outage.
        publish(&kafka.config(), &expired()).await;
    }
    // Long enough for more probes than an order has attempts.
    tokio::time::sleep(Duration::from_secs(3)).await;
    gateway.faults(json!({"mode": "up"})).await;
    let charged = read_events::<PaymentSucceeded>(&kafka.config(), 20, PATIENCE).await;
    let attempts: Vec<_> = charged.iter().map(|(envelope, _)| envelope.attempt).collect();
    assert_eq!(attempts, [Some(1); 20]);
    for (_, failed) in read_events::<PaymentFailed>(&kafka.config(), 20, PATIENCE).await {
        assert_eq!(failed.reason, EXPIRED);
    }
    assert_eq!(gateway.ledger().await.len(), 20);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_away_past_the_deadline_charges_nobody() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let orders: Vec<_> = (0..20)
        .map(|_| OrderCreated { expires_at: Timestamp::now() - SignedDuration::from_secs(1), ..order("tok_visa") })
        .collect();
    for order in &orders {
        publish(&kafka.config(), order).await;
        publish(&kafka.config(), &cancelled(order)).await;
    }
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    read_events::<PaymentFailed>(&kafka.config(), 20, PATIENCE).await;
    service.stop().await;
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    gateway.faults(json!({"maxRps": 40})).await;
    let orders: Vec<_> = (0..120).map(|_| order("tok_visa")).collect();
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    publish_all(&kafka.config(), &orders.iter().collect::<Vec<_>>()).await;
    read_events::<PaymentSucceeded>(&kafka.config(), 20, PATIENCE).await;
    service.stop().await;
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    let records = read_until(&kafka.config(), "payments", PATIENCE, |records| records.len() >= 120).await;
    let charged: BTreeSet<_> = records.iter().map(|record| decode::<PaymentSucceeded>(record).1.order_id).collect();
    assert_eq!(charged.len(), 120, "each order is told once");
    assert_eq!(gateway.ledger().await.len(), 120);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_that_never_answer_do_not_hold_up_the_others() {
    let (kafka, gateway, database) = (MockKafka::start(1), FakeGateway::start().await, TempDatabase::any().await);
    let service = Running::start(&kafka.config(), &database, &gateway).await;
    let hanging: Vec<_> = (0..20).map(|_| order("tok_timeout")).collect();
    let prompt: Vec<_> = (0..100).map(|_| order("tok_visa")).collect();
    let orders: Vec<_> = hanging.iter().chain(&prompt).collect();
    publish_all(&kafka.config(), &orders).await;
    let records = read_until(&kafka.config(), "payments", PATIENCE, |records| records.len() >= 120).await;
    assert!(records.iter().all(|record| type_of(record) == "payment.succeeded"));
    let mut answered: Vec<_> = records
        .iter()
        .map(|record| (record.timestamp.unwrap(), decode::<PaymentSucceeded>(record).1.order_id))
        .collect();
    answered.sort_unstable();
    let hung = |id: &OrderId| hanging.iter().any(|order| order.order_id == *id);
    let first_hung = answered.iter().position(|(_, id)| hung(id)).unwrap();
    assert_eq!(first_hung, 100, "so many of 100 were answered before the first that hung");
    assert_eq!(gateway.ledger().await.len(), 120);
    service.stop().await;
}

/// In this order, and quickly: with one producer.
async fn publish_all(kafka: &KafkaConfig, orders: &[&OrderCreated]) {
    let producer = Producer::new(kafka).unwrap();
    let sent = orders.iter().map(|order| {
        let headers = Envelope::new(*order, "order-service", Timestamp::now()).to_headers();
        producer.send(OutgoingRecord {
            topic: "orders".to_owned(),
            partition: None,
            key: Some(order.order_id.to_string().into_bytes()),
            value: Some(serde_json::to_vec(order).unwrap()),
            headers: headers.into_iter().map(|(name, value)| (name.into(), Some(value.into_bytes()))).collect(),
        })
    });
    for sent in futures_util::future::join_all(sent).await {
        sent.unwrap();
    }
}
