//! The routes and the handlers over a database, without HTTP and Kafka in between.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use event_runtime::{BatchHandler, Clock, Database, Delivery, HandlerError, outbox::OutboxRow};
use jiff::Timestamp;
use order_service::{http, store};
use serde_json::{Value, json};
use shared_events::{Event, OrderId};
use test_support::{TempDatabase, handling};
use tower::ServiceExt;

pub const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

pub struct Bench {
    pub database: Database,
    pub routes: Router,
    _file: TempDatabase,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Bench {
    pub async fn new() -> Bench {
        let file = TempDatabase::new();
        let url = match std::env::var("TEST_DATABASE_URL") {
            Ok(server) => own_schema(&server).await,
            Err(_) => file.url(),
        };
        let database = Database::connect_lazy(&url).unwrap();
        database.migrate(store::MIGRATIONS).await.unwrap();
        let routes = http::routes(database.clone(), Clock::system(), Duration::from_secs(30));
        Bench { database, routes, _file: file }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, body: &Value, idempotency_key: Option<&str>) -> Answer {
        self.send(post(body.to_string(), idempotency_key)).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Places an order, answers its id.
    pub async fn placed(&self) -> OrderId {
        let answer = self.post(&order("ada@example.org"), None).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        answer.body["orderId"].as_str().unwrap().parse().unwrap()
    }

    pub async fn order(&self, id: OrderId) -> Value {
        let answer = self.get(&format!("/orders/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    /// Handles one event as a consumer does, and answers what was published.
    pub async fn handle<H: BatchHandler, E: Clone + Into<H::Event>>(
        &self,
        handler: &H,
        delivery: &Delivery<E>,
    ) -> Result<Vec<OutboxRow>, HandlerError> {
        handling::handle(&self.database, handler, delivery).await
    }

    pub async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.database.pool()).await.unwrap()
    }
}

/// The same tests run on PostgreSQL where `TEST_DATABASE_URL` names a server, each in a schema of its own.
async fn own_schema(server: &str) -> String {
    let schema = format!("it_{}", OrderId::new().0.simple());
    let admin = Database::connect_lazy(server).unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(create).execute(admin.pool()).await.unwrap();
    admin.close().await;
    format!("{server}?options[search_path]={schema}")
}

pub fn post(body: String, idempotency_key: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(Method::POST).uri("/orders");
    request = request.header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    request.body(Body::from(body)).unwrap()
}

/// Two bags of coffee and a mug: 50.30 EUR.
pub fn order(customer: &str) -> Value {
    json!({
        "customer": customer,
        "items": [{ "sku": "COFFEE-1KG", "quantity": 2 }, { "sku": "MUG-BLUE", "quantity": 1 }],
        "paymentToken": "tok_visa",
    })
}

/// `event` as `service` said it at its second attempt, read at offset 7 of partition 3.
pub fn delivered<E: Event>(event: E, service: &str) -> Delivery<E> {
    let mut delivery = handling::delivery(event, Timestamp::now());
    let envelope = Arc::make_mut(&mut delivery.envelope);
    service.clone_into(&mut envelope.source);
    envelope.attempt = Some(2);
    envelope.traceparent = Some(format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    (delivery.origin.partition, delivery.origin.offset) = (3, 7);
    delivery
}
