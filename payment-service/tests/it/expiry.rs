//! Orders whose time has passed are neither charged nor kept charged.

use std::time::Duration;

use payment_gateway_fake::Config;
use payment_service::domain::{EXPIRED, State};
use serde_json::json;

use crate::support::{FakeGateway, Payments, assert_retry, assert_unavailable, cancelled, types};

const PAST_EXPIRY: Duration = Duration::from_secs(31);

#[tokio::test]
async fn an_expired_order_is_refused_without_asking_the_gateway() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    payments.skip(PAST_EXPIRY);
    gateway.faults(json!({"mode": "down"})).await;
    let (said, _) = payments.handle(&payments.charge, &order).await;
    assert_eq!(types(&said), [format!("payment.failed: {EXPIRED}")]);
    assert!(gateway.ledger().await.is_empty());
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
}

#[tokio::test]
async fn a_charge_found_after_expiry_is_given_back() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    let delivery = payments.delivery(&payments.charge, &order, 1);
    payments.until_crash(&payments.charge, &delivery).await.unwrap();
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
    payments.skip(PAST_EXPIRY);

    let delivery = payments.delivery(&payments.charge, &order, 1);
    payments.until_crash(&payments.charge, &delivery).await.unwrap();
    let (said, _) = payments.handle(&payments.charge, &order).await;
    assert_eq!(types(&said), [&format!("payment.failed: {EXPIRED}"), "payment.refunded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
    assert_eq!(payments.stored(order.order_id).await.state, State::Refunded);
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
}

#[tokio::test]
async fn an_outage_beyond_expiry_ends_without_a_charge() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    gateway.faults(json!({"mode": "down"})).await;
    assert_unavailable(payments.attempt(&payments.charge, &order, 1).await);
    payments.skip(PAST_EXPIRY);
    // Whether it was charged is not known while the gateway is away, so nothing may be said.
    assert_unavailable(payments.attempt(&payments.charge, &order, 1).await);
    gateway.faults(json!({"mode": "up"})).await;
    let (said, _) = payments.handle(&payments.charge, &order).await;
    assert_eq!(types(&said), [format!("payment.failed: {EXPIRED}")]);
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test]
async fn an_order_that_expires_while_it_waits_for_the_gateway_is_not_charged() {
    let gateway = FakeGateway::with(Config { max_rps: Some(1), ..Config::default() }).await;
    let payments = Payments::at(&gateway.url()).await;
    payments.handle(&payments.charge, &payments.order("tok_visa")).await;
    let order = payments.order("tok_visa");
    let waiting = payments.attempt(&payments.charge, &order, 1);
    let expiring = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        payments.skip(PAST_EXPIRY);
    };
    let (said, ()) = tokio::join!(waiting, expiring);
    assert_eq!(types(&said.unwrap()), [format!("payment.failed: {EXPIRED}")]);
    assert!(gateway.charges_of(order.order_id).await.is_empty());
    assert_eq!(payments.stored(order.order_id).await.unsettled_since, None);
}

#[tokio::test]
async fn a_charge_given_back_meanwhile_is_no_payment() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_timeout");
    assert_retry(payments.attempt(&payments.charge, &order, 1).await);
    let id = gateway.ledger().await[0]["id"].as_str().unwrap().to_owned();
    reqwest::Client::new().post(format!("{}/charges/{id}/refunds", gateway.url())).send().await.unwrap();
    let (said, _) = payments.handle(&payments.charge, &order).await;
    assert_eq!(types(&said).last().unwrap(), "payment.refunded");
    assert_eq!(payments.stored(order.order_id).await.state, State::Refunded);
}
