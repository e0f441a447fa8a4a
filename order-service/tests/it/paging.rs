use axum::http::StatusCode;
use order_service::handlers::Advance;
use serde_json::{Value, json};
use shared_events::{OrderDeadlineReached, OrderId};

use crate::bench::{Bench, delivered};

fn ids(page: &Value) -> Vec<String> {
    let orders = page["orders"].as_array().unwrap_or_else(|| panic!("{page}"));
    orders.iter().map(|order| order["orderId"].as_str().unwrap().to_owned()).collect()
}

async fn five_orders(bench: &Bench) -> Vec<OrderId> {
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(bench.placed().await);
    }
    placed
}

#[tokio::test]
async fn pages_list_every_order_once_the_newest_first() {
    let bench = Bench::new().await;
    let mut expected: Vec<String> = five_orders(&bench).await.iter().map(OrderId::to_string).collect();
    expected.reverse();

    let mut seen = Vec::new();
    let mut path = "/orders?limit=2".to_owned();
    loop {
        let page = bench.get(&path).await.body;
        assert!(page["orders"][0].get("timeline").is_none(), "a list is no place for timelines");
        seen.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => path = format!("/orders?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_page_that_is_just_full_has_no_next() {
    let bench = Bench::new().await;
    five_orders(&bench).await;
    let page = bench.get("/orders?limit=5").await.body;
    assert_eq!(ids(&page).len(), 5);
    assert_eq!(page["next"], json!(null));
}

#[tokio::test]
async fn orders_are_filtered_by_state() {
    let bench = Bench::new().await;
    let placed = five_orders(&bench).await;
    for order_id in [placed[1], placed[3]] {
        let overdue = delivered(OrderDeadlineReached { order_id }, "order-service");
        bench.handle(&Advance, &overdue).await.unwrap();
    }
    let listed = async |state: &str| ids(&bench.get(&format!("/orders?state={state}")).await.body);
    assert_eq!(listed("cancelled").await, [placed[3].to_string(), placed[1].to_string()]);
    assert_eq!(listed("pending").await.len(), 3);
    assert_eq!(listed("completed").await.len(), 0);
    assert_eq!(listed("").await.len(), 5);
    let second = bench.get(&format!("/orders?state=cancelled&after={}", placed[3])).await.body;
    assert_eq!(ids(&second), [placed[1].to_string()]);
}

#[tokio::test]
async fn many_orders_can_be_asked_about_at_once() {
    let bench = Bench::new().await;
    let placed = five_orders(&bench).await;
    let overdue = delivered(OrderDeadlineReached { order_id: placed[0] }, "order-service");
    bench.handle(&Advance, &overdue).await.unwrap();

    let unknown = OrderId::new();
    let page = bench.get(&format!("/orders?ids={},{unknown},{}", placed[0], placed[3])).await.body;
    assert_eq!(ids(&page), [placed[3].to_string(), placed[0].to_string()]);
    assert_eq!(page["next"], json!(null));
    assert_eq!((&page["orders"][0]["state"], &page["orders"][0]["endedAt"]), (&json!("pending"), &json!(null)));
    assert_eq!(page["orders"][1]["state"], "cancelled");
    assert!(page["orders"][1]["endedAt"].is_string(), "{page}");
    assert_eq!(ids(&bench.get("/orders?ids=").await.body).len(), 0);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_says_what_can_be_asked() {
    let bench = Bench::new().await;
    let cases = [
        ("/orders?state=done", "pending, completed or cancelled"),
        ("/orders?limit=0", "1 to 200"),
        ("/orders?limit=201", "1 to 200"),
        ("/orders?limit=ten", "1 to 200"),
        ("/orders?after=yesterday", "`next`"),
        ("/orders/42", "one looks like"),
        ("/orders?ids=42", "\"42\", which is no order id"),
        (&format!("/orders?ids={}", vec![OrderId::new().to_string(); 201].join(",")), "up to 200"),
    ];
    for (path, words) in cases {
        let answer = bench.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{path}: {}", answer.body);
    }
    let unknown = OrderId::new();
    let answer = bench.get(&format!("/orders/{unknown}")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.body["detail"], format!("there is no order {unknown}"));
}

#[tokio::test]
async fn the_catalogue_lists_a_dozen_products_with_prices() {
    let bench = Bench::new().await;
    let products = bench.get("/products").await.body["products"].clone();
    assert_eq!(products.as_array().unwrap().len(), 12);
    assert_eq!(
        products[0],
        json!({
            "sku": "COFFEE-1KG", "name": "Coffee beans, 1 kg", "price": { "minor": 1890, "currency": "EUR" }
        })
    );
}
