use std::net::{SocketAddr, TcpListener};

use payment_gateway_fake::Config;
use payment_service::domain::State;
use serde_json::json;
use shared_events::{OrderCreated, Pattern};
use tokio::time::Instant;

use crate::support::{FakeGateway, Payments, amount, assert_unavailable, types};

#[tokio::test]
async fn a_good_card_is_charged_once() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    let (said, attempt) = payments.handle(&payments.charge, &order).await;
    assert_eq!((types(&said), attempt), (vec!["payment.succeeded".to_owned()], 1));
    assert_eq!(said[0].data["amount"], amount());
    let payment = payments.stored(order.order_id).await;
    assert_eq!((payment.state, payment.attempts), (State::Succeeded, 1));
    assert_eq!(said[0].data["paymentId"], payment.payment_id.to_string());
    assert_eq!(gateway.ledger().await[0]["id"], *payment.charge_id.unwrap());
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn a_declined_card_fails_with_its_reason_at_the_first_attempt() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    for (token, reason) in [
        ("tok_chargeDeclined", "payment.failed: the card was declined"),
        ("tok_insufficient_funds", "payment.failed: the card has insufficient funds"),
        ("tok_nobody", "payment.failed: the payment token is not known"),
    ] {
        let order = payments.order(token);
        let (said, attempt) = payments.handle(&payments.charge, &order).await;
        assert_eq!((types(&said), attempt), (vec![reason.to_owned()], 1));
        let payment = payments.stored(order.order_id).await;
        assert_eq!((payment.state, payment.unsettled_since), (State::Failed, None));
    }
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test]
async fn a_flaky_card_is_charged_at_the_third_attempt() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_flaky");
    let (said, attempt) = payments.handle(&payments.charge, &order).await;
    assert_eq!((types(&said), attempt), (vec!["payment.succeeded".to_owned()], 3));
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn a_crash_after_the_charge_repeats_it_under_the_same_key() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    for _ in 0..2 {
        let delivery = payments.delivery(&payments.charge, &order, 1);
        assert!(payments.until_crash(&payments.charge, &delivery).await.unwrap().is_some());
        assert_eq!(payments.stored(order.order_id).await.state, State::Charging);
    }
    let (said, _) = payments.handle(&payments.charge, &order).await;
    assert_eq!(types(&said), ["payment.succeeded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn a_second_order_created_of_one_order_changes_nothing() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.handle(&payments.charge, &order).await;
    let before = payments.stored(order.order_id).await;
    assert_eq!(payments.handle(&payments.charge, &order).await, (vec![], 1));
    assert_eq!(payments.stored(order.order_id).await, before);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_an_outage_even_at_the_last_attempt() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    gateway.faults(json!({"mode": "down"})).await;
    for attempt in [1, 1, 4] {
        assert_unavailable(payments.attempt(&payments.charge, &order, attempt).await);
    }
    gateway.faults(json!({"mode": "up"})).await;
    let (said, attempt) = payments.handle(&payments.charge, &order).await;
    assert_eq!((types(&said), attempt), (vec!["payment.succeeded".to_owned()], 1));
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn a_gateway_that_does_not_listen_is_an_outage() {
    let address = unused_address();
    let payments = Payments::at(&format!("http://{address}")).await;
    let order = payments.order("tok_visa");
    assert_unavailable(payments.attempt(&payments.charge, &order, 1).await);
    let gateway = FakeGateway::at(address, Config::default()).await;
    assert_eq!(types(&payments.handle(&payments.charge, &order).await.0), ["payment.succeeded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn an_order_of_another_pattern_is_left_alone() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = OrderCreated { pattern: Pattern::Unknown, ..payments.order("tok_visa") };
    assert_eq!(payments.handle(&payments.charge, &order).await, (vec![], 1));
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test]
async fn a_gateway_that_asks_to_wait_gets_every_order_in_its_time() {
    let gateway = FakeGateway::with(Config { max_rps: Some(20), ..Config::default() }).await;
    let payments = Payments::at(&gateway.url()).await;
    let orders: Vec<_> = (0..50).map(|_| payments.order("tok_visa")).collect();
    let begun = Instant::now();
    let attempts = orders.iter().map(|order| payments.attempt(&payments.charge, order, 1));
    for said in futures_util::future::join_all(attempts).await {
        assert_eq!(types(&said.expect("waiting costs no attempt")), ["payment.succeeded"]);
    }
    assert_eq!(gateway.ledger().await.len(), 50);
    // 20 at once, 30 more at 20 a second; well below the 20 s after which a handler gives way.
    let took = begun.elapsed().as_secs_f64();
    assert!((1.0..8.0).contains(&took), "50 charges at 20 a second took {took} s");
}

fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
