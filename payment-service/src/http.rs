//! Looking payments up: read only, for people and operators.

use axum::{Router, extract::State as Shared, routing::get};
use event_runtime::{
    Database,
    http::{Json, Path, Problem, Query},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared_events::{Money, OrderId, PaymentId};

use crate::{
    domain::{Payment, State},
    error::PaymentError,
    store,
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1000;

/// A payment as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    order_id: OrderId,
    payment_id: PaymentId,
    state: &'static str,
    amount: Option<Money>,
    charge_id: Option<String>,
    reason: Option<String>,
    attempts: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListQuery {
    state: Option<String>,
    after: Option<OrderId>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct List {
    payments: Vec<Shown>,
    /// The `after` of the next page.
    next: Option<OrderId>,
}

/// `GET /payments/{orderId}` and `GET /payments?state=&after=&limit=`.
pub fn routes(database: &Database) -> Router {
    Router::new()
        .route("/payments", get(list_payments))
        .route("/payments/{order_id}", get(get_payment))
        .with_state(database.clone())
}

async fn get_payment(Shared(database): Shared<Database>, Path(order): Path<OrderId>) -> Result<Json<Shown>, Problem> {
    let payment = store::find(database.pool(), order).await?;
    payment
        .map(|payment| Json(Shown::from(payment)))
        .ok_or_else(|| Problem::not_found(format!("there is no payment of order {order}")))
}

async fn list_payments(
    Shared(database): Shared<Database>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List>, Problem> {
    let state = query.state.as_deref().map(state_named).transpose()?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be 1 to {MAX_LIMIT}, not {limit}")));
    }
    let payments = store::list(database.pool(), state, query.after, limit).await?;
    let full = payments.len() == limit as usize;
    let next = payments.last().filter(|_| full).map(|last| last.order_id);
    Ok(Json(List { payments: payments.into_iter().map(Shown::from).collect(), next }))
}

fn state_named(name: &str) -> Result<State, Problem> {
    State::named(name).ok_or_else(|| {
        let known = State::ALL.map(State::name).join(", ");
        Problem::bad_request(format!("there is no state {name:?}; the states are {known}"))
    })
}

impl From<Payment> for Shown {
    fn from(payment: Payment) -> Shown {
        Shown {
            order_id: payment.order_id,
            payment_id: payment.payment_id,
            state: payment.state.name(),
            amount: payment.amount,
            charge_id: payment.charge_id,
            reason: payment.reason,
            attempts: payment.attempts,
            created_at: payment.created_at,
            updated_at: payment.updated_at,
        }
    }
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Problem {
        match error {
            PaymentError::Database(source) => Problem::from(source),
            error => Problem::internal(error),
        }
    }
}
