//! The order API as its clients see it: tolerant of fields it does not know.

use std::{fmt, sync::Arc, time::Duration};

use event_runtime::config::discovery::Found;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_events::{Money, OrderId};
use tokio::sync::Semaphore;

/// How long one request may take, its connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How many orders one question can be about.
pub const MOST_AT_ONCE: usize = 200;

/// How many orders are asked about at the same time.
const ASKING: usize = 16;

/// Talks to one order-service.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    found: Found,
    // Thousands of orders may be followed at once; their questions take turns.
    asking: Arc<Semaphore>,
}

/// Why the API gave no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody there: the request was never sent.
    #[error(
        "order-service does not answer at {} ({}): {reason}; start the stack with `cargo run` or `docker compose up \
         --wait`, or name another address with --url",
        found.value, found.source
    )]
    Unreachable { found: Found, reason: String },
    /// The connection broke or time ran out: what was asked may have been done.
    #[error("order-service at {address} gave no answer: {reason}")]
    NoAnswer { address: String, reason: String },
    /// It answered that it will not.
    #[error("{0}")]
    Refused(Problem),
    /// It answered what no order-service of this version answers.
    #[error("{address} answered {status} with something that is no order-service's answer: {reason}")]
    Strange { address: String, status: StatusCode, reason: String },
}

/// RFC 9457 problem details, as far as a person needs them.
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub detail: Option<String>,
}

/// An order to be placed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewOrder {
    pub customer: String,
    pub items: Vec<NewItem>,
    pub payment_token: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    pub sku: String,
    pub quantity: u32,
}

/// The answer to a placed order.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    pub order_id: OrderId,
    pub total: Money,
}

/// An order as the API shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub order_id: OrderId,
    pub state: String,
    pub reason: Option<String>,
    #[serde(default)]
    pub customer: String,
    #[serde(default)]
    pub items: Vec<OrderedItem>,
    pub total: Option<Money>,
    pub created_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    #[serde(default)]
    pub timeline: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct OrderedItem {
    pub sku: String,
    pub quantity: u32,
}

/// One event of an order's timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub time: Timestamp,
    pub service: String,
    pub event: String,
    pub event_id: Option<String>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub attempt: Option<u32>,
    pub trace_id: Option<String>,
    pub detail: Option<String>,
}

/// A page of orders.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    pub orders: Vec<Value>,
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Orders {
    orders: Vec<Order>,
}

impl Order {
    /// Whether nothing more will happen to its state.
    pub fn has_ended(&self) -> bool {
        self.state != "pending"
    }

    pub fn is_cancelled(&self) -> bool {
        self.state == "cancelled"
    }
}

impl Api {
    pub fn new(found: Found) -> anyhow::Result<Api> {
        // Orders are asked about at loopback speed; a proxy meant for the world has no business here.
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build()?;
        Ok(Api { http, found, asking: Arc::new(Semaphore::new(ASKING)) })
    }

    /// Places an order; returns what is told of it, and the answer as it came.
    pub async fn place(&self, order: &NewOrder, key: Option<&str>) -> Result<(Placed, Value), ApiError> {
        let mut request = self.request(Method::POST, "/orders").json(order);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.answer(request).await
    }

    /// One order with its timeline; and the answer as it came.
    pub async fn order(&self, id: OrderId) -> Result<(Order, Value), ApiError> {
        let _turn = self.asking.acquire().await.expect("this semaphore is never closed");
        self.answer(self.request(Method::GET, &format!("/orders/{id}"))).await
    }

    /// Those of up to [`MOST_AT_ONCE`] orders that there are, without their timelines.
    pub async fn these_orders(&self, ids: &[OrderId]) -> Result<Vec<Order>, ApiError> {
        let ids: Vec<String> = ids.iter().map(OrderId::to_string).collect();
        let request = self.request(Method::GET, "/orders").query(&[("ids", ids.join(","))]);
        Ok(self.answer::<Orders>(request).await?.0.orders)
    }

    /// A page of at most `limit` orders that come after `after`.
    pub async fn orders(&self, state: Option<&str>, limit: usize, after: Option<&str>) -> Result<Page, ApiError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(state.map(|state| ("state", state.to_owned())));
        query.extend(after.map(|after| ("after", after.to_owned())));
        Ok(self.answer(self.request(Method::GET, "/orders").query(&query)).await?.0)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.found.value.trim_end_matches('/')))
    }

    async fn answer<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<(T, Value), ApiError> {
        let response = request.send().await.map_err(|error| self.not_answered(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.not_answered(&error))?;
        if !status.is_success() {
            return Err(ApiError::Refused(Problem::read(status, &body)));
        }
        let strange = |error: serde_json::Error| ApiError::Strange {
            address: self.found.value.clone(),
            status,
            reason: error.to_string(),
        };
        let value: Value = serde_json::from_slice(&body).map_err(strange)?;
        Ok((T::deserialize(&value).map_err(strange)?, value))
    }

    fn not_answered(&self, error: &reqwest::Error) -> ApiError {
        let reason = innermost(error);
        // Without a connection nothing was sent; a URL that cannot be used goes nowhere either.
        if error.is_connect() || error.is_builder() {
            return ApiError::Unreachable { found: self.found.clone(), reason };
        }
        ApiError::NoAnswer { address: self.found.value.clone(), reason }
    }
}

impl ApiError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            ApiError::Unreachable { .. } | ApiError::NoAnswer { .. } => true,
            ApiError::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
            ApiError::Strange { .. } => false,
        }
    }
}

impl Problem {
    fn read(status: StatusCode, body: &[u8]) -> Problem {
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let mut problem = problem.unwrap_or_else(|| Problem { status: 0, title: String::new(), detail: None });
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            problem.title = status.to_string();
        }
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{detail} ({})", self.status),
            None => write!(f, "order-service refuses: {} ({})", self.title, self.status),
        }
    }
}

/// The cause at the bottom: "connection refused" instead of three layers that say "error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
