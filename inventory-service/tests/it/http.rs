use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use inventory_service::handlers::MoveStock;
use serde_json::{Value, json};
use shared_events::OrderId;
use test_support::handling::{delivery, handle};
use tower::ServiceExt;

use crate::{NOW, created, stock};

async fn ask(routes: &Router, method: &str, path: &str, body: Option<&str>) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_owned()))).unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn stock_is_shown_with_where_its_pieces_are() {
    let (_place, database) = stock().await;
    let delivery = delivery(created(OrderId::new(), &[("MUG-BLUE", 3)]), NOW);
    handle(&database, &MoveStock, &delivery).await.unwrap();
    let routes = inventory_service::routes(database);
    let (status, mug) = ask(&routes, "GET", "/stock/MUG-BLUE", None).await;
    let expected = json!({
        "sku": "MUG-BLUE", "name": "Blue mug", "price": {"minor": 1250, "currency": "EUR"},
        "seeded": 100, "adjustments": 0, "available": 97, "reserved": 3, "sold": 0,
    });
    assert_eq!((status, &mug), (StatusCode::OK, &expected));
    let (status, all) = ask(&routes, "GET", "/stock", None).await;
    let all = all["stock"].as_array().unwrap();
    assert_eq!((status, all.len(), all.contains(&expected)), (StatusCode::OK, 12, true));
}

#[tokio::test]
async fn an_adjustment_is_booked_as_the_difference() {
    let (_place, database) = stock().await;
    let delivery = delivery(created(OrderId::new(), &[("MUG-BLUE", 10)]), NOW);
    handle(&database, &MoveStock, &delivery).await.unwrap();
    let routes = inventory_service::routes(database.clone());
    for (available, adjustments) in [(250, 160), (0, -90), (0, -90), (1_000_000_000, 999_999_910)] {
        let body = json!({ "available": available }).to_string();
        let (status, level) = ask(&routes, "PUT", "/stock/MUG-BLUE", Some(&body)).await;
        assert_eq!(
            (status, &level["available"], &level["adjustments"]),
            (StatusCode::OK, &json!(available), &json!(adjustments))
        );
        assert!(crate::level(&database, "MUG-BLUE").await.adds_up());
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_a_problem_that_says_what() {
    let (_place, database) = stock().await;
    let routes = inventory_service::routes(database.clone());
    let table = [
        ("GET", "/stock/MUG-RED", None, StatusCode::NOT_FOUND, "there is no product \"MUG-RED\"; GET /stock lists all"),
        ("PUT", "/stock/MUG-RED", Some(r#"{"available":1}"#), StatusCode::NOT_FOUND, "there is no product \"MUG-RED\""),
        (
            "PUT",
            "/stock/MUG-BLUE",
            Some(r#"{"available":-1}"#),
            StatusCode::UNPROCESSABLE_ENTITY,
            "available must be from 0 to 1000000000, not -1",
        ),
        (
            "PUT",
            "/stock/MUG-BLUE",
            Some(r#"{"available":1000000001}"#),
            StatusCode::UNPROCESSABLE_ENTITY,
            "available must be from 0 to",
        ),
        ("PUT", "/stock/MUG-BLUE", Some(r#"{"available":1.5}"#), StatusCode::UNPROCESSABLE_ENTITY, "floating point"),
        (
            "PUT",
            "/stock/MUG-BLUE",
            Some(r#"{"available":1,"sold":0}"#),
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown field `sold`",
        ),
        ("PUT", "/stock/MUG-BLUE", Some("{}"), StatusCode::UNPROCESSABLE_ENTITY, "missing field `available`"),
        ("PUT", "/stock/MUG-BLUE", Some("{"), StatusCode::BAD_REQUEST, "the body is not JSON"),
    ];
    for (method, path, body, status, detail) in table {
        let (answered, problem) = ask(&routes, method, path, body).await;
        assert_eq!(answered, status, "{method} {path} {body:?}: {problem}");
        assert!(problem["detail"].as_str().unwrap_or_default().contains(detail), "{method} {path} {body:?}: {problem}");
    }
    assert_eq!(crate::pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}
