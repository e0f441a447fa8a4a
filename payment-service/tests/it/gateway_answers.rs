//! Gateways that answer what ours never does.

use axum::{
    Router,
    http::{Method, StatusCode, header},
    routing::any,
};
use event_runtime::HandlerError;
use payment_service::domain::State;
use tokio::net::TcpListener;

use crate::support::{Payments, assert_retry, assert_unavailable, types};

const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain";

/// Answers a POST with one status and a GET with another, with this content type and no charge.
async fn gateway(post: u16, get: u16, content_type: &'static str) -> String {
    let answer = move |method: Method| async move {
        let status = StatusCode::from_u16(if method == Method::POST { post } else { get }).unwrap();
        let body = if get == 200 && method == Method::GET { "[]" } else { r#"{"detail":"because"}"# };
        (status, [(header::CONTENT_TYPE, content_type)], body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().fallback(any(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

async fn attempt(post: u16, get: u16, content_type: &'static str, attempt: u32) -> Result<Vec<String>, HandlerError> {
    let payments = Payments::at(&gateway(post, get, content_type).await).await;
    let said = payments.attempt(&payments.charge, &payments.order("tok_visa"), attempt).await?;
    Ok(types(&said))
}

#[tokio::test]
async fn a_failing_gateway_is_asked_again() {
    for status in [500, 502, 504] {
        assert_retry(attempt(status, 200, PROBLEM, 1).await);
    }
    // A 200 that says nothing is no answer.
    assert_retry(attempt(200, 200, PROBLEM, 1).await);
}

#[tokio::test]
async fn after_the_last_attempt_failure_is_said_only_if_the_gateway_confirms_it() {
    let said = attempt(500, 200, PROBLEM, 4).await.unwrap();
    assert_eq!(said, ["payment.failed: payment provider did not answer"]);
    for status in [500, 503, 429] {
        assert_unavailable(attempt(500, status, PROBLEM, 4).await);
    }
}

#[tokio::test]
async fn a_refused_request_is_a_failed_payment() {
    for status in [400, 413, 422] {
        let said = attempt(status, 200, PROBLEM, 1).await.unwrap();
        assert_eq!(said, ["payment.failed: payment provider refused the request"], "{status}");
    }
}

#[tokio::test]
async fn what_is_no_gateway_fails_no_order() {
    for status in [301, 401, 403, 404, 405] {
        assert_unavailable(attempt(status, status, TEXT, 4).await);
    }
}

#[tokio::test]
async fn where_the_gateway_was_never_asked_an_exhausted_order_is_told_to_have_failed() {
    let payments = Payments::at("http://127.0.0.1:9").await;
    let order = payments.order("tok_visa");
    assert_eq!(exhausted(&payments, &order).await, ["payment.failed: payment could not be attempted"]);
    assert_eq!(payments.stored(order.order_id).await.state, State::Failed);

    // Where it may have been asked, the cancellation will look the charge up.
    let order = payments.order("tok_visa");
    assert_unavailable(payments.attempt(&payments.charge, &order, 1).await);
    assert!(exhausted(&payments, &order).await.is_empty());
    assert_eq!(payments.stored(order.order_id).await.state, State::Charging);
}

async fn exhausted(payments: &Payments, order: &shared_events::OrderCreated) -> Vec<String> {
    use event_runtime::{EffectHandler, Outbox};
    let delivery = payments.delivery(&payments.charge, order, 4);
    let mut outbox = Outbox::caused_by("payment-service", &delivery);
    let mut tx = payments.database.begin().await.unwrap();
    let error = HandlerError::retry("the database is full");
    payments.charge.exhausted(&mut tx, &mut outbox, &delivery, &error).await.unwrap();
    tx.commit().await.unwrap();
    types(&outbox.rows().iter().map(Into::into).collect::<Vec<_>>())
}
