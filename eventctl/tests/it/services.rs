//! Stand-ins for the services: order-service knows one order; every service answers `/inspect`.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Starts a service that answers these, for as long as the test's runtime lives; returns its URL.
pub async fn service(order: Option<Value>, inspection: Value) -> String {
    let router = Router::new()
        .route(
            "/orders/{id}",
            get(async |State(order): State<Option<Value>>| order.map(Json).ok_or(StatusCode::NOT_FOUND)),
        )
        .with_state(order)
        .route("/inspect/{key}", get(async move || Json(inspection)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A service with nothing in hand.
pub async fn idle() -> String {
    service(None, desk(&[])).await
}

pub fn desk(in_flight: &[Value]) -> Value {
    json!({"service": "x", "inFlight": in_flight, "outbox": {"rows": 0, "oldestAgeSeconds": null}})
}
