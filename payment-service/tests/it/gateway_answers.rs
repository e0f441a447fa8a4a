//! Gateways that answer what ours never does.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use event_runtime::HandlerError;
use jiff::SignedDuration;
use payment_service::domain::State;
use serde_json::{Value, json};
use shared_events::OrderCreated;
use tokio::net::TcpListener;

use crate::support::{Payments, amount, assert_retry, assert_unavailable, cancelled, types};

const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain";

/// Answers a POST with one status and a GET with another, with this content type and no charge.
async fn gateway(post: u16, get: u16, content_type: &'static str) -> String {
    let answer = move |method: Method| async move {
        let status = StatusCode::from_u16(if method == Method::POST { post } else { get }).unwrap();
        let body = if get == 200 && method == Method::GET { "[]" } else { r#"{"detail":"because"}"# };
        (status, [(header::CONTENT_TYPE, content_type)], body)
    };
    serve(Router::new().fallback(any(answer))).await
}

async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
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

/// A gateway that does as it is told while the test goes on; until it is told how, it answers no POST.
#[derive(Default)]
struct Script {
    posts: AtomicUsize,
    answer: Mutex<Option<Response>>,
    charge: Mutex<Option<&'static str>>,
}

impl Script {
    async fn start(self: &Arc<Script>) -> String {
        let script = self.clone();
        let routes = Router::new()
            .route("/charges/{id}/refunds", post(async || Json(charge("refunded"))))
            .fallback(any(move |method: Method| async move { script.answer(&method).await }));
        serve(routes).await
    }

    async fn answer(&self, method: &Method) -> Response {
        if method == Method::GET {
            let charges: Vec<Value> = self.charge.lock().unwrap().map(charge).into_iter().collect();
            return Json(charges).into_response();
        }
        self.posts.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.lock().unwrap().as_ref().map(|answer| (answer.status(), answer.headers().clone()));
        match answer {
            Some((status, headers)) => (status, headers, r#"{"detail":"because"}"#).into_response(),
            None => std::future::pending().await,
        }
    }

    fn answers(&self, status: u16, header: (header::HeaderName, &'static str)) {
        *self.answer.lock().unwrap() = Some((StatusCode::from_u16(status).unwrap(), [header]).into_response());
    }
}

fn charge(status: &str) -> Value {
    json!({"id": "ch_1", "amount": amount(), "status": status})
}

#[tokio::test]
async fn a_key_in_use_is_no_refusal_while_the_gateway_is_still_at_the_first_request() {
    let script = Arc::new(Script::default());
    let payments = Payments::at(&script.start().await).await;
    let order = payments.order("tok_visa");
    assert_retry(payments.attempt(&payments.charge, &order, 1).await);
    script.answers(409, (header::CONTENT_TYPE, PROBLEM));
    assert_retry(payments.attempt(&payments.charge, &order, 2).await);
    *script.charge.lock().unwrap() = Some("succeeded");
    assert_eq!(types(&payments.attempt(&payments.charge, &order, 3).await.unwrap()), ["payment.succeeded"]);
}

#[tokio::test]
async fn a_charge_that_lands_after_a_repetition_was_declined_or_refused_is_refunded() {
    for status in [402, 422] {
        let script = Arc::new(Script::default());
        let payments = Payments::at(&script.start().await).await;
        let order = payments.order("tok_visa");
        assert_retry(payments.attempt(&payments.charge, &order, 1).await);
        script.answers(status, (header::CONTENT_TYPE, PROBLEM));
        let said = payments.attempt(&payments.charge, &order, 2).await.unwrap();
        assert_eq!(said[0].event_type, "payment.failed", "{status}");
        *script.charge.lock().unwrap() = Some("succeeded");
        let said = payments.attempt(&payments.refund, &cancelled(&order), 1).await.unwrap();
        assert_eq!(types(&said), ["payment.refunded"], "{status}");
    }
}

#[tokio::test]
async fn a_rest_without_end_is_an_outage() {
    let script = Arc::new(Script::default());
    script.answers(429, (header::RETRY_AFTER, "18446744073709551615"));
    let payments = Payments::at(&script.start().await).await;
    assert_unavailable(payments.attempt(&payments.charge, &payments.order("tok_visa"), 1).await);
}

#[tokio::test]
async fn a_gateway_that_wants_no_rest_is_not_stormed() {
    let script = Arc::new(Script::default());
    script.answers(429, (header::RETRY_AFTER, "0"));
    let payments = Payments::at(&script.start().await).await;
    let order =
        OrderCreated { expires_at: payments.now() + SignedDuration::from_millis(500), ..payments.order("tok_visa") };
    assert_eq!(types(&payments.attempt(&payments.charge, &order, 1).await.unwrap()), ["payment.failed: order expired"]);
    let posts = script.posts.load(Ordering::Relaxed);
    assert!(posts <= 12, "asked {posts} times in half a second");
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

async fn exhausted(payments: &Payments, order: &OrderCreated) -> Vec<String> {
    use event_runtime::{EffectHandler, Outbox};
    let delivery = payments.delivery(&payments.charge, order, 4);
    let mut outbox = Outbox::caused_by("payment-service", &delivery);
    let mut tx = payments.database.begin().await.unwrap();
    let error = HandlerError::retry("the database is full");
    payments.charge.exhausted(&mut tx, &mut outbox, &delivery, &error).await.unwrap();
    tx.commit().await.unwrap();
    types(&outbox.rows().iter().map(Into::into).collect::<Vec<_>>())
}
