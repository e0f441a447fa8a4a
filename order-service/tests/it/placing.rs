use axum::http::StatusCode;
use serde_json::json;

use crate::bench::{Bench, order, post};

#[tokio::test]
async fn an_accepted_order_is_stored_with_its_event_its_deadline_and_its_first_line() {
    let bench = Bench::new().await;
    let answer = bench.post(&order("ada@example.org"), None).await;

    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    let id = answer.body["orderId"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/orders/{id}"));
    assert_eq!(answer.headers.get("idempotency-replayed"), None);
    assert_eq!(answer.body["state"], "pending");
    assert_eq!(answer.body["total"], json!({ "minor": 2 * 1890 + 1250, "currency": "EUR" }));

    let order = bench.get(&format!("/orders/{id}")).await.body;
    assert_eq!(order["state"], "pending");
    assert_eq!(order["reason"], json!(null));
    assert_eq!(order["customer"], "ada@example.org");
    assert_eq!(order["expiresAt"], answer.body["expiresAt"]);
    assert_eq!(
        order["items"][0],
        json!({ "sku": "COFFEE-1KG", "quantity": 2, "unitPrice": { "minor": 1890, "currency": "EUR" } })
    );
    let timeline = order["timeline"].as_array().unwrap();
    assert_eq!(timeline.len(), 1, "{timeline:?}");
    assert_eq!(timeline[0]["event"], "order.created");
    assert_eq!(timeline[0]["service"], "order-service");
    assert_eq!(timeline[0]["topic"], "orders");
    assert_eq!(timeline[0]["offset"], json!(null), "nothing is published before the relay has run");
    assert_eq!(timeline[0]["detail"], "50.30 EUR");
}

#[tokio::test]
async fn a_refused_order_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let mut unknown_sku = order("ada@example.org");
    unknown_sku["items"][0]["sku"] = json!("TEAPOT");
    unknown_sku["customer"] = json!("nobody");
    let answer = bench.post(&unknown_sku, Some("key-1")).await;

    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["errors"][0]["pointer"], "/customer");
    assert_eq!(answer.body["errors"][1]["pointer"], "/items/0/sku");
    assert!(answer.body["detail"].as_str().unwrap().contains("COFFEE-1KG"), "{}", answer.body);
    assert_eq!(bench.count("orders").await, 0);
    assert_eq!(bench.count("order_timeline").await, 0);

    let mended = bench.post(&order("ada@example.org"), Some("key-1")).await;
    assert_eq!(mended.status, StatusCode::ACCEPTED, "a refused request does not use its key up: {}", mended.body);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_bad_request_that_says_where() {
    let bench = Bench::new().await;
    for body in ["", "{", "{\"customer\": ada}", "customer=ada", "\u{0}"] {
        let answer = bench.send(post(body.to_owned(), None)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body:?}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("line 1") && detail.contains("paymentToken"), "{body:?}: {detail}");
    }
}

#[tokio::test]
async fn a_customer_who_writes_sql_is_a_customer_with_a_strange_address() {
    let bench = Bench::new().await;
    let answer = bench.post(&order("o'neil--@example.org"), None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert_eq!(bench.count("orders").await, 1);
}
