use payment_service::domain::{CANCELLED, State};
use serde_json::json;

use crate::support::{FakeGateway, Payments, amount, assert_unavailable, cancelled, types};

#[tokio::test]
async fn a_cancelled_order_gets_its_money_back_once() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.handle(&payments.charge, &order).await;
    let (said, _) = payments.handle(&payments.refund, &cancelled(&order)).await;
    assert_eq!(types(&said), ["payment.refunded"]);
    let payment = payments.stored(order.order_id).await;
    assert_eq!(said[0].data["paymentId"], payment.payment_id.to_string());
    assert_eq!(said[0].data["amount"], amount());
    assert_eq!(payment.state, State::Refunded);
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
}

#[tokio::test]
async fn a_crash_after_the_refund_repeats_it_without_harm() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.handle(&payments.charge, &order).await;
    let delivery = payments.delivery(&payments.refund, &cancelled(&order), 1);
    payments.until_crash(&payments.refund, &delivery).await.unwrap();
    assert_eq!(payments.stored(order.order_id).await.state, State::Refunding);
    let (said, _) = payments.handle(&payments.refund, &cancelled(&order)).await;
    assert_eq!(types(&said), ["payment.refunded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
}

#[tokio::test]
async fn a_refund_waits_for_a_gateway_that_is_down() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.handle(&payments.charge, &order).await;
    gateway.faults(json!({"mode": "down"})).await;
    assert_unavailable(payments.attempt(&payments.refund, &cancelled(&order), 1).await);
    gateway.faults(json!({"mode": "up"})).await;
    assert_eq!(types(&payments.handle(&payments.refund, &cancelled(&order)).await.0), ["payment.refunded"]);
}

#[tokio::test]
async fn a_slow_refund_is_tried_until_it_is_done() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.handle(&payments.charge, &order).await;
    gateway.faults(json!({"mode": "slow", "delayMs": 60_000})).await;
    // More failures than a limited number of retries would stand.
    for attempt in 1..=6 {
        crate::support::assert_retry(payments.attempt(&payments.refund, &cancelled(&order), attempt).await);
    }
    gateway.faults(json!({"mode": "up"})).await;
    assert_eq!(types(&payments.handle(&payments.refund, &cancelled(&order)).await.0), ["payment.refunded"]);
}

#[tokio::test]
async fn an_order_cancelled_before_it_was_created_here_is_never_charged() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
    assert_eq!(payments.stored(order.order_id).await.state, State::Cancelled);
    for _ in 0..2 {
        let (said, _) = payments.handle(&payments.charge, &order).await;
        assert_eq!(types(&said), [format!("payment.failed: {CANCELLED}")]);
    }
    assert_eq!(payments.stored(order.order_id).await.state, State::Cancelled);
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test]
async fn an_order_that_was_declined_has_nothing_to_refund() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_chargeDeclined");
    payments.handle(&payments.charge, &order).await;
    gateway.faults(json!({"mode": "down"})).await;
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
    assert_eq!(payments.stored(order.order_id).await.state, State::Failed);
}
