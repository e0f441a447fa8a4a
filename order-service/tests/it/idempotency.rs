use std::collections::HashSet;

use axum::http::StatusCode;
use futures_util::future::join_all;
use order_service::handlers::Advance;
use serde_json::json;
use shared_events::OrderDeadlineReached;

use crate::bench::{Bench, delivered, order, post};

#[tokio::test]
async fn the_same_request_again_gets_the_first_answer_even_after_the_order_has_ended() {
    let bench = Bench::new().await;
    let first = bench.post(&order("ada@example.org"), Some("key-1")).await;
    let order_id = first.body["orderId"].as_str().unwrap().parse().unwrap();
    let overdue = delivered(OrderDeadlineReached { order_id }, "order-service");
    bench.handle(&Advance, &overdue).await.unwrap();

    let again = bench.post(&order("ada@example.org"), Some("key-1")).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(bench.count("orders").await, 1);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_names_the_order_it_placed() {
    let bench = Bench::new().await;
    let first = bench.post(&order("ada@example.org"), Some("key-1")).await;
    let other = bench.post(&order("bob@example.org"), Some("key-1")).await;

    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.headers["content-type"], "application/problem+json");
    assert_eq!(other.body["orderId"], first.body["orderId"]);
    assert!(other.body["detail"].as_str().unwrap().contains("\"key-1\""), "{}", other.body);
    assert_eq!(bench.count("orders").await, 1);
}

#[tokio::test]
async fn without_a_key_every_request_is_an_order_of_its_own() {
    let bench = Bench::new().await;
    assert_ne!(bench.placed().await, bench.placed().await);
    assert_eq!(bench.count("orders").await, 2);
}

#[tokio::test]
async fn of_many_requests_at_once_with_one_key_one_places_the_order_and_all_get_its_answer() {
    let bench = Bench::new().await;
    let body = order("ada@example.org");
    let answers = join_all((0..20).map(|_| bench.post(&body, Some("key-1")))).await;

    let ids: HashSet<_> = answers.iter().map(|answer| answer.body["orderId"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(answers.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    let first_answers = answers.iter().filter(|answer| !answer.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(first_answers, 1);
    assert_eq!(bench.count("orders").await, 1);
    assert_eq!(bench.count("order_timeline").await, 1);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_refused_with_what_can() {
    let bench = Bench::new().await;
    let body = order("ada@example.org").to_string();
    for key in ["", "two words", &"x".repeat(256)] {
        let answer = bench.send(post(body.clone(), Some(key))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{key:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("1 to 255"), "{key:?}: {}", answer.body);
    }
    let mut twice = post(body, Some("key-1"));
    twice.headers_mut().append("idempotency-key", "key-2".parse().unwrap());
    let answer = bench.send(twice).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body["detail"].as_str().unwrap().contains("send one"), "{}", answer.body);
    assert_eq!(bench.count("orders").await, 0);
}

#[tokio::test]
async fn a_body_with_other_spacing_and_unknown_members_is_the_same_body() {
    let bench = Bench::new().await;
    let mut body = order("ada@example.org");
    let first = bench.post(&body, Some("key-1")).await;
    body["note"] = json!("unknown to this version");
    let pretty = serde_json::to_string_pretty(&body).unwrap();
    let again = bench.send(post(pretty, Some("key-1"))).await;
    assert_eq!(again.body, first.body);
}
