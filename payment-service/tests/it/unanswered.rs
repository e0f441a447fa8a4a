//! The gateway takes the request, and its answer never comes.

use std::time::Duration;

use event_runtime::HandlerError;
use payment_service::domain::{NO_ANSWER, State};
use serde_json::json;
use test_support::eventually;
use tokio::time::Instant;

use crate::support::{
    FakeGateway, GATEWAY_TIMEOUT, LONGEST_ATTEMPT, Payments, SETTLES_AFTER, assert_retry, cancelled, types,
};

#[tokio::test]
async fn a_charge_without_an_answer_is_found_by_key_at_the_second_attempt() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_timeout");
    let begun = Instant::now();
    let (said, attempt) = payments.handle(&payments.charge, &order).await;
    assert_eq!((types(&said), attempt), (vec!["payment.succeeded".to_owned()], 2));
    assert!(begun.elapsed() < GATEWAY_TIMEOUT * 3, "it took {:?}", begun.elapsed());
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn at_the_last_attempt_a_charge_is_found_by_key() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_timeout");
    let said = payments.attempt(&payments.charge, &order, 4).await.unwrap();
    assert_eq!(types(&said), ["payment.succeeded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["succeeded"]);
}

#[tokio::test]
async fn failure_is_said_when_the_gateway_confirms_that_there_is_no_charge() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    gateway.faults(json!({"mode": "slow", "delayMs": 60_000})).await;
    let order = payments.order("tok_visa");
    let (said, attempt) = payments.handle(&payments.charge, &order).await;
    assert_eq!((types(&said), attempt), (vec![format!("payment.failed: {NO_ANSWER}")], 4));
    let payment = payments.stored(order.order_id).await;
    assert_eq!(payment.state, State::Failed);
    assert!(payment.unsettled_since.is_some(), "the gateway may still be charging");
}

#[tokio::test]
async fn a_charge_that_comes_after_all_is_refunded() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    gateway.faults(json!({"mode": "slow", "delayMs": 600_000})).await;
    let said = payments.attempt(&payments.charge, &order, 4).await.unwrap();
    assert_eq!(types(&said), [format!("payment.failed: {NO_ANSWER}")]);
    gateway.faults(json!({"mode": "up"})).await;

    // The order is cancelled before the late charge is made.
    assert_retry(payments.attempt(&payments.refund, &cancelled(&order), 1).await);
    gateway.charge_late(&order).await;
    let said = payments.attempt(&payments.refund, &cancelled(&order), 2).await.unwrap();
    assert_eq!(types(&said), ["payment.refunded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
    assert_eq!(payments.stored(order.order_id).await.state, State::Refunded);
}

#[tokio::test]
async fn once_the_gateway_has_settled_without_a_charge_there_is_nothing_to_refund() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    gateway.faults(json!({"mode": "slow", "delayMs": 600_000})).await;
    payments.attempt(&payments.charge, &order, 4).await.unwrap();
    assert_retry(payments.attempt(&payments.refund, &cancelled(&order), 1).await);
    payments.skip(SETTLES_AFTER + LONGEST_ATTEMPT);
    assert_eq!(payments.handle(&payments.refund, &cancelled(&order)).await, (vec![], 1));
    let payment = payments.stored(order.order_id).await;
    assert_eq!((payment.state, payment.unsettled_since), (State::Failed, None));
}

#[tokio::test]
async fn the_gateway_settles_after_the_latest_moment_at_which_it_may_have_been_asked() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_visa");
    gateway.faults(json!({"mode": "slow", "delayMs": 600_000})).await;
    assert_retry(payments.attempt(&payments.charge, &order, 1).await);
    gateway.faults(json!({"mode": "up"})).await;

    // The attempt may have stood in line all this time, and its request may have gone out only just now.
    payments.skip(SETTLES_AFTER + Duration::from_secs(20));
    assert_retry(payments.attempt(&payments.refund, &cancelled(&order), 1).await);
    gateway.charge_late(&order).await;
    let said = payments.attempt(&payments.refund, &cancelled(&order), 2).await.unwrap();
    assert_eq!(types(&said), ["payment.refunded"]);
}

#[tokio::test]
async fn an_order_cancelled_while_its_outcome_is_unknown_keeps_no_charge() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::at(&gateway.url()).await;
    let order = payments.order("tok_timeout");
    assert_retry(payments.attempt(&payments.charge, &order, 1).await);
    eventually(Duration::from_secs(5), "a charge", async || match gateway.charges_of(order.order_id).await.len() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    // order.created was dead-lettered, say; then comes the cancellation.
    let (said, _) = payments.handle(&payments.refund, &cancelled(&order)).await;
    assert_eq!(types(&said), ["payment.refunded"]);
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
    // And the dead letter is replayed.
    assert_eq!(payments.handle(&payments.charge, &order).await, (vec![], 1));
    assert_eq!(gateway.charges_of(order.order_id).await, ["refunded"]);
}

#[tokio::test]
async fn the_gateway_is_waited_for_no_longer_than_the_attempt_may_run_and_not_asked_after_that() {
    let gateway = FakeGateway::start().await;
    let payments = Payments::waiting(&gateway.url(), Duration::from_secs(60)).await;
    gateway.faults(json!({"mode": "slow", "delayMs": 600_000})).await;
    let order = payments.order("tok_visa");
    let mut charge = payments.delivery(&payments.charge, &order, 1);
    let no_time = "no time is left to ask the payment gateway";
    for (left, says) in [(3, "the payment gateway did not answer"), (1, no_time)] {
        charge.deadline = Instant::now() + Duration::from_secs(left);
        assert_retry_says(payments.until_crash(&payments.charge, &charge).await.map(drop), says);
        assert!(charge.remaining() > Duration::from_millis(500), "{:?}", charge.remaining());
    }
    let cancelled = cancelled(&order);
    let mut refund = payments.delivery(&payments.refund, &cancelled, 1);
    refund.deadline = Instant::now() + Duration::from_secs(1);
    assert_retry_says(payments.until_crash(&payments.refund, &refund).await.map(drop), no_time);
}

fn assert_retry_says(outcome: Result<(), HandlerError>, words: &str) {
    let Err(HandlerError::Retry(error)) = outcome else { panic!("no retry: {outcome:?}") };
    assert_eq!(error.source().unwrap().to_string(), words, "{error}");
}
