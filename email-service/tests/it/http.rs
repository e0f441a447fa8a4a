use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use email_service::{ConfirmOrder, ExplainCancellation};
use event_runtime::{EffectHandler as _, Outbox};
use serde_json::Value;
use test_support::{
    SmtpSink,
    handling::{delivery, effect},
    smtp::Answer,
};
use tower::ServiceExt;

use crate::{NOW, cancelled, completed, database, post};

async fn get(routes: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn mails_are_shown_with_what_became_of_them() {
    let (_place, database) = database().await;
    let sink = SmtpSink::start().await;
    let routes = email_service::routes(database.clone());
    let sent = delivery(completed("ann@example.com"), NOW);
    effect(&database, &ConfirmOrder(post(&sink)), &sent).await.unwrap();

    sink.answer(Answer::Never);
    let handler = ExplainCancellation(post(&sink));
    let refused = delivery(cancelled("gone@example.com"), NOW);
    let error = effect(&database, &handler, &refused).await.unwrap_err();
    let (_, under_way) = get(&routes, &format!("/mails?order={}", refused.event.order_id)).await;
    assert_eq!(under_way["mails"][0]["state"], "sending");
    let mut tx = database.begin().await.unwrap();
    handler.exhausted(&mut tx, &mut Outbox::caused_by("test", &refused), &refused, &error).await.unwrap();
    tx.commit().await.unwrap();

    let (status, all) = get(&routes, "/mails").await;
    assert_eq!((status, all["mails"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let (_, one) = get(&routes, &format!("/mails?order={}", sent.event.order_id)).await;
    let expected = serde_json::json!({ "mails": [{
        "orderId": sent.event.order_id, "about": "order.completed",
        "messageId": format!("<{}@example.org>", sent.envelope.id), "to": "ann@example.com",
        "subject": format!("Order {} is confirmed", sent.event.order_id), "state": "sent", "time": "1970-01-01T00:00:00Z",
    }]});
    assert_eq!(one, expected);
    let (_, one) = get(&routes, &format!("/mails?order={}", refused.event.order_id)).await;
    assert_eq!(one["mails"][0]["state"], "failed");
    let error = one["mails"][0]["error"].as_str().unwrap();
    assert!(error.starts_with("the mail server refuses the mail for good: permanent error (550)"), "{error}");
}

#[tokio::test]
async fn an_order_without_mails_has_none_and_what_is_no_order_is_a_problem() {
    let (_place, database) = database().await;
    let routes = email_service::routes(database);
    let (status, none) = get(&routes, "/mails?order=01920f5e-7c1a-7000-8000-000000000001").await;
    assert_eq!((status, none["mails"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)));
    for path in ["/mails?order=7", "/mails?orders=01920f5e-7c1a-7000-8000-000000000001"] {
        let (status, problem) = get(&routes, path).await;
        assert_eq!((status, &problem["status"]), (StatusCode::BAD_REQUEST, &Value::from(400)), "{path}: {problem}");
    }
}
