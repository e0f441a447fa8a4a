use std::time::Duration;

use event_runtime::{
    Record,
    config::TelemetryConfig,
    telemetry::{self, LogOptions},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared_events::{
    CorrelationId, Envelope, MailSent, Money, OrderCancelled, OrderCompleted, OrderCreated, OrderId, PaymentId,
    PaymentSucceeded, StockItem, StockReserved, header, topics,
};
use test_support::records::{publish, publish_as, publish_raw, read_events, read_until, type_of};

use crate::bench::TRACE_ID;
use crate::whole::{PATIENCE, Place, is_placed, lines};

fn paid(order_id: OrderId) -> PaymentSucceeded {
    PaymentSucceeded { order_id, payment_id: PaymentId::new(), amount: Money::eur(5030) }
}

fn reserved(order_id: OrderId) -> StockReserved {
    StockReserved { order_id, items: vec![StockItem { sku: "COFFEE-1KG".to_owned(), quantity: 2 }] }
}

/// What was published about the order, in its order, up to now: a marker of the same key ends the reading.
async fn published(place: &Place, order_id: OrderId) -> Vec<String> {
    let key = order_id.to_string();
    // By the runtime's own rule, so that it lands in the partition of the order's events.
    let mut kafka = place.kafka();
    kafka.settings.push("partitioner=murmur2_random".to_owned());
    publish_raw(&kafka, topics::ORDERS.name, &key, &[(header::TYPE, b"marker")], b"{}").await;
    let has_marker = |records: &[Record]| records.iter().any(|record| type_of(record) == "marker");
    let records = read_until(&place.kafka(), topics::ORDERS.name, PATIENCE, has_marker).await;
    let of_order = records.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes()));
    of_order.map(|record| type_of(record).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_completes_and_its_timeline_says_where_every_event_stands() {
    let place = Place::new(Duration::from_secs(60));
    let service = place.start().await;
    let order_id = service.placed().await;

    let (envelope, created) = read_events::<OrderCreated>(&place.kafka(), 1, PATIENCE).await.remove(0);
    assert_eq!(created.order_id, order_id);
    assert_eq!(created.payment_token, "tok_visa");
    assert_eq!(created.total, Money::eur(5030));
    assert!(created.expires_at > Timestamp::now());

    let payment = publish(&place.kafka(), &paid(order_id)).await;
    publish(&place.kafka(), &reserved(order_id)).await;
    let (completed_as, completed) = read_events::<OrderCompleted>(&place.kafka(), 1, PATIENCE).await.remove(0);
    assert_eq!(completed.order_id, order_id);
    assert_eq!(completed_as.attempt, Some(1));
    let mail = MailSent { order_id, about: "order.completed".to_owned(), message_id: "<1@example.org>".to_owned() };
    publish(&place.kafka(), &mail).await;

    let is_done = |order: &Value| is_placed(order) && lines(order, "mail.sent").len() == 1;
    let order = service.order_when(order_id, "line of the mail", is_done).await;
    assert_eq!(order["state"], "completed");
    let own = lines(&order, "order.created")[0];
    assert_eq!(own["eventId"], envelope.id.to_string());
    assert_eq!(own["topic"], "orders");
    assert_eq!(lines(&order, "payment.succeeded")[0]["eventId"], payment.id.to_string());
    assert_eq!(lines(&order, "order.completed")[0]["attempt"], 1);
    let times: Vec<&str> =
        order["timeline"].as_array().unwrap().iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_hands_its_trace_and_its_correlation_id_on() {
    let telemetry = LogOptions::new("order-service", &TelemetryConfig::default()).default_filter("error");
    let _telemetry = telemetry::init(&telemetry).unwrap();
    let place = Place::new(Duration::from_secs(60));
    let service = place.start().await;
    let correlation_id = CorrelationId::new();
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    let headers = [("traceparent", traceparent.as_str()), ("x-correlation-id", &correlation_id.to_string())];
    let order_id = service.placed_with(&headers).await;

    let (envelope, _) = read_events::<OrderCreated>(&place.kafka(), 1, PATIENCE).await.remove(0);
    assert_eq!(envelope.correlation_id, Some(correlation_id));
    let handed_on = envelope.traceparent.unwrap();
    assert!(handed_on.contains(TRACE_ID), "{handed_on}");
    let order = service.order(order_id).await;
    assert_eq!(lines(&order, "order.created")[0]["traceId"], TRACE_ID);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_twice_ends_an_order_once() {
    let place = Place::new(Duration::from_secs(60));
    let service = place.start().await;
    let order_id = service.placed().await;
    let (payment, stock) = (paid(order_id), reserved(order_id));
    let payment_as = Envelope::new(&payment, "payment-service", Timestamp::now());
    let stock_as = Envelope::new(&stock, "inventory-service", Timestamp::now());
    for _ in 0..2 {
        publish_as(&place.kafka(), &payment, &payment_as).await;
        publish_as(&place.kafka(), &stock, &stock_as).await;
    }
    // The same things said again under other ids are no duplicates to the inbox; the saga knows them.
    publish(&place.kafka(), &payment).await;
    publish(&place.kafka(), &stock).await;
    let is_done = |order: &Value| {
        is_placed(order) && ["payment.succeeded", "stock.reserved"].iter().all(|event| lines(order, event).len() == 2)
    };
    service.order_when(order_id, "two lines of each", is_done).await;

    assert_eq!(published(&place, order_id).await, ["order.created", "order.completed", "marker"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_so_the_deadline_cancels_and_a_late_payment_changes_nothing() {
    let place = Place::new(Duration::from_millis(300));
    let service = place.start().await;
    let order_id = service.placed().await;

    let (_, cancelled) = read_events::<OrderCancelled>(&place.kafka(), 1, PATIENCE).await.remove(0);
    assert_eq!(cancelled.order_id, order_id);
    assert!(cancelled.reason.contains("in time"), "{}", cancelled.reason);
    let order = service.order_when(order_id, "places of all lines", is_placed).await;
    assert_eq!((&order["state"], &order["reason"]), (&json!("cancelled"), &json!(cancelled.reason)));
    let reached = lines(&order, "order.deadline-reached");
    let [reached] = reached[..] else { panic!("not one line: {reached:?}") };
    assert_eq!(reached["time"], order["expiresAt"], "when it was due, not when it was written");

    publish(&place.kafka(), &paid(order_id)).await;
    publish(&place.kafka(), &reserved(order_id)).await;
    let is_noted = |order: &Value| order["payment"] == "succeeded" && order["stock"] == "reserved";
    let order = service.order_when(order_id, "late successes", is_noted).await;
    assert_eq!(order["state"], "cancelled");

    assert_eq!(published(&place, order_id).await, ["order.created", "order.cancelled", "marker"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passed_while_the_service_was_down_is_kept_when_it_is_back() {
    let place = Place::new(Duration::from_millis(200));
    let service = place.start().await;
    let order_id = service.placed().await;
    service.stop().await;

    let service = place.start().await;
    let order = service.order_when(order_id, "end", |order| order["state"] != "pending").await;
    assert_eq!(order["state"], "cancelled");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_any_service_are_lines_of_their_orders_timeline() {
    let place = Place::new(Duration::from_secs(60));
    let service = place.start().await;
    let order_id = service.placed().await;
    let poison = Envelope::new(&paid(order_id), "payment-service", Timestamp::now());
    let headers = poison.to_headers();
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let key = order_id.to_string();
    publish_raw(&place.kafka(), topics::PAYMENTS.name, &key, &headers, b"{ no JSON").await;
    let letter = [
        ("kafka_dlt-original-topic", &b"orders"[..]),
        ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
        ("kafka_dlt-original-offset", &17_i64.to_be_bytes()),
        ("kafka_dlt-original-consumer-group", b"email-service"),
        ("kafka_dlt-exception-message", b"the mail server is full"),
        ("dlt-attempts", b"4"),
        ("dlt-failed-at", b"2026-01-02T03:04:05Z"),
    ];
    publish_raw(&place.kafka(), "orders.email-service.dlt", &key, &letter, b"whatever").await;

    let order = service.order_when(order_id, "two dead letters", |order| lines(order, "dead-letter").len() == 2).await;
    let by_service = |service: &str| {
        let of_service = lines(&order, "dead-letter").into_iter().find(|line| line["service"] == service);
        of_service.unwrap_or_else(|| panic!("no dead letter of {service} in {order}")).clone()
    };
    let own = by_service("order-service");
    assert_eq!(own["topic"], "payments.order-service.dlt");
    assert_eq!(own["eventId"], poison.id.to_string());
    assert!(own["detail"].as_str().unwrap().starts_with("payment.succeeded at payments["), "{own}");
    let mails = by_service("email-service");
    assert_eq!(mails["time"], "2026-01-02T03:04:05Z");
    assert_eq!(mails["attempt"], 4);
    let detail = "a record that is no event at orders[3]@17, after 4 attempts: the mail server is full";
    assert_eq!(mails["detail"], detail);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_with_the_limit() {
    let place = Place::new(Duration::from_secs(60));
    let service = place.start().await;
    let response = service.post("x".repeat(65 * 1024)).await;
    assert_eq!(response.status(), 413);
    let body = response.text().await.unwrap();
    assert!(body.contains("65536 bytes"), "{body}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_port_ends_the_start_with_how_to_mend_it() {
    let place = Place::new(Duration::from_secs(60));
    let mut config = place.config();
    let first = order_service::bind(config.clone()).await.unwrap();
    config.service.listen = Some(first.address());
    let error = order_service::bind(config).await.err().expect("the port is taken").to_string();
    assert!(error.contains("in use") && error.contains("--listen"), "{error}");
}
