//! A stand-in for order-service's HTTP API, on a thread of its own. What becomes of an order is its payment token's say.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use shared_events::OrderId;

/// A running stub.
pub struct Stub {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    // Dropping it ends the server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

#[derive(Default)]
struct Shared {
    orders: Vec<Stubbed>,
    keys: HashMap<String, usize>,
    attempts: u64,
}

struct Stubbed {
    id: OrderId,
    token: String,
    customer: String,
    asked: u32,
}

impl Stub {
    pub fn start() -> Stub {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new()
            .route("/orders", post(place).get(list))
            .route("/orders/{id}", get(order))
            .with_state(shared.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (told, address) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let server = axum::serve(listener, router);
                tokio::select! {
                    served = server => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Stub { address: address.recv().unwrap(), shared, _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn orders(&self) -> usize {
        self.shared.lock().unwrap().orders.len()
    }

    /// Adds an order, and returns its id.
    pub fn add(&self, token: &str) -> OrderId {
        self.shared.lock().unwrap().insert(token, "ada@example.org")
    }
}

impl Shared {
    fn insert(&mut self, token: &str, customer: &str) -> OrderId {
        let id = OrderId::new();
        self.orders.push(Stubbed { id, token: token.to_owned(), customer: customer.to_owned(), asked: 0 });
        id
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"type": "about:blank", "title": "Refused", "status": status.as_u16(), "detail": detail});
    (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
}

async fn place(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut shared = shared.lock().unwrap();
    shared.attempts += 1;
    let sku = body["items"][0]["sku"].as_str().unwrap_or_default();
    if sku == "NOPE" {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "there is no product \"NOPE\"");
    }
    let token = body["paymentToken"].as_str().unwrap_or_default();
    // Every third answer of this token is "not now".
    if token == "tok_busy" && shared.attempts % 3 != 0 {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not now");
    }
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    let known = key.as_ref().and_then(|key| shared.keys.get(key).copied());
    let position = known.unwrap_or(shared.orders.len());
    if known.is_none() {
        shared.insert(token, body["customer"].as_str().unwrap_or_default());
    }
    if let Some(key) = key {
        shared.keys.insert(key, position);
    }
    let id = shared.orders[position].id;
    let total = json!({"minor": 1250, "currency": "EUR"});
    (StatusCode::ACCEPTED, Json(json!({"orderId": id, "state": "pending", "total": total}))).into_response()
}

async fn order(State(shared): State<Arc<Mutex<Shared>>>, Path(id): Path<String>) -> Response {
    let mut shared = shared.lock().unwrap();
    let Some(order) = shared.orders.iter_mut().find(|order| order.id.to_string() == id) else {
        return problem(StatusCode::NOT_FOUND, &format!("there is no order {id}"));
    };
    order.asked += 1;
    Json(order.show()).into_response()
}

impl Stubbed {
    /// Ends at the third question.
    fn show(&self) -> Value {
        let ending = match self.token.as_str() {
            "tok_never" => "pending",
            "tok_chargeDeclined" => "cancelled",
            _ => "completed",
        };
        let state = if self.asked < 3 { "pending" } else { ending };
        let mut timeline = vec![entry("00.000", "order-service", "order.created", Some(0), "")];
        if state != "pending" {
            let ended = format!("order.{state}");
            timeline.push(entry("00.040", "payment-service", "payment.answered", Some(7), "ch_1"));
            // The relay notes where the last event stands a little later.
            timeline.push(entry("00.080", "order-service", &ended, (self.asked > 4).then_some(1), ""));
        }
        json!({
            "orderId": self.id,
            "state": state,
            "reason": (state == "cancelled").then_some("card declined"),
            "customer": self.customer,
            "items": [{"sku": "COFFEE-1KG", "quantity": 2}],
            "total": {"minor": 1250, "currency": "EUR"},
            "createdAt": "2026-01-31T12:00:00Z",
            "endedAt": (state != "pending").then_some("2026-01-31T12:00:00.080Z"),
            "timeline": timeline,
        })
    }
}

fn entry(second: &str, service: &str, event: &str, offset: Option<i64>, detail: &str) -> Value {
    json!({
        "time": format!("2026-01-31T12:00:{second}Z"), "service": service, "event": event, "eventId": format!("id-{event}"),
        "topic": "orders", "partition": offset.map(|_| 3), "offset": offset, "attempt": 1,
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "detail": detail,
    })
}

async fn list(State(shared): State<Arc<Mutex<Shared>>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let mut shared = shared.lock().unwrap();
    if let Some(ids) = query.get("ids") {
        let asked = shared.orders.iter_mut().filter(|order| ids.contains(&order.id.to_string()));
        let orders = asked.map(|order| {
            order.asked += 1;
            order.show()
        });
        return Json(json!({"orders": orders.collect::<Vec<_>>(), "next": null})).into_response();
    }
    let limit: usize = query["limit"].parse().unwrap();
    let begin: usize = query.get("after").map_or(0, |after| after.parse().unwrap());
    let end = (begin + limit).min(shared.orders.len());
    let page = shared.orders[begin..end].iter().map(Stubbed::show);
    let next = (end < shared.orders.len()).then(|| end.to_string());
    Json(json!({"orders": page.collect::<Vec<_>>(), "next": next})).into_response()
}
