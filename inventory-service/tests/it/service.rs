//! The whole service between an embedded broker and its database.

use std::{net::SocketAddr, time::Duration};

use event_runtime::config::ServiceConfig;
use inventory_service::Config;
use jiff::Timestamp;
use serde_json::json;
use shared_events::{
    Envelope, Event, OrderCreated, OrderId, StockCommitted, StockRejected, StockReserved, topics::dead_letter_topic,
};
use test_support::{
    MockKafka, RunningService, TempDatabase, eventually,
    records::{publish, publish_as, publish_raw, read_events, read_until, type_of},
};

use crate::{completed, created};

const PATIENCE: Duration = Duration::from_secs(30);

async fn service(kafka: &MockKafka, place: &TempDatabase) -> RunningService {
    let config = ServiceConfig::new(kafka.config(), place.url()).listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    RunningService::ready(inventory_service::bind(Config { service: config }).await.unwrap()).await
}

/// An order that is in time by the machine's clock.
fn order(of: &[(&str, u32)]) -> OrderCreated {
    OrderCreated { expires_at: Timestamp::now() + Duration::from_secs(600), ..created(OrderId::new(), of) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_twice_are_answered_once() {
    let (kafka, place) = (MockKafka::start(1), TempDatabase::any().await);
    let service = service(&kafka, &place).await;
    let first = order(&[("MUG-BLUE", 3)]);
    let envelope = publish(&kafka.config(), &first).await;
    publish_as(&kafka.config(), &first, &envelope).await;
    let end = completed(first.order_id);
    let envelope = publish(&kafka.config(), &end).await;
    publish_as(&kafka.config(), &end, &envelope).await;
    eventually(PATIENCE, "two duplicates", async || {
        let metrics = service.text("/metrics").await;
        let counted = ["order.created", "order.completed"].map(|event| {
            format!(r#"consumer_records_duplicate_total{{group="inventory-service",topic="orders",type="{event}"}} 1"#)
        });
        if counted.iter().all(|line| metrics.contains(line)) { Ok(()) } else { Err(metrics) }
    })
    .await;

    let reserved = read_events::<StockReserved>(&kafka.config(), 1, PATIENCE).await;
    let committed = read_events::<StockCommitted>(&kafka.config(), 1, PATIENCE).await;
    assert_eq!((reserved.len(), committed.len()), (1, 1));
    assert_eq!((committed[0].0.source.as_str(), committed[0].0.causation_id), ("inventory-service", Some(envelope.id)));
    let mug = service.get("/stock/MUG-BLUE").await;
    assert_eq!([&mug["available"], &mug["reserved"], &mug["sold"]], [&json!(97), &json!(0), &json!(3)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_nobody_can_read_is_a_dead_letter_and_holds_up_nothing() {
    let (kafka, place) = (MockKafka::start(1), TempDatabase::any().await);
    let service = service(&kafka, &place).await;
    let fine = order(&[("MUG-BLUE", 1)]);
    let headers = Envelope::new(&fine, "test", Timestamp::now()).to_headers();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    publish_raw(&kafka.config(), "orders", &fine.key(), &headers, b"{\"orderId\":7}").await;
    publish(&kafka.config(), &fine).await;
    assert_eq!(read_events::<StockReserved>(&kafka.config(), 1, PATIENCE).await.len(), 1);
    let topic = dead_letter_topic("orders", "inventory-service");
    let dead = read_until(&kafka.config(), &topic, PATIENCE, |records| !records.is_empty()).await;
    assert_eq!((type_of(&dead[0]), dead[0].value.as_deref()), (OrderCreated::TYPE, Some(&b"{\"orderId\":7}"[..])));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_came_while_it_was_away_are_served_on_its_return_up_to_the_last_piece() {
    let (kafka, place) = (MockKafka::start(1), TempDatabase::any().await);
    let first = service(&kafka, &place).await;
    publish(&kafka.config(), &order(&[("MUG-BLUE", 10)])).await;
    read_events::<StockReserved>(&kafka.config(), 1, PATIENCE).await;
    first.stop().await;
    for _ in 0..40 {
        publish(&kafka.config(), &order(&[("MUG-BLUE", 3)])).await;
    }
    let second = service(&kafka, &place).await;
    // 90 pieces were left: 30 orders of 3 get them.
    let reserved = read_events::<StockReserved>(&kafka.config(), 31, PATIENCE).await;
    let rejected = read_events::<StockRejected>(&kafka.config(), 10, PATIENCE).await;
    assert_eq!((reserved.len(), rejected.len()), (31, 10));
    let mug = second.get("/stock/MUG-BLUE").await;
    assert_eq!([&mug["available"], &mug["reserved"], &mug["sold"]], [&json!(0), &json!(100), &json!(0)]);
    second.stop().await;
}
