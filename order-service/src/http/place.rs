//! `POST /orders`: stores the order with its `order.created` and its deadline, and answers at once.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use event_runtime::{
    Outbox,
    http::{Correlation, Problem},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared_events::{CorrelationId, OrderCreated, OrderDeadlineReached, OrderId, Pattern, topics};
use tracing::info;

use super::{
    Api,
    validate::{self, Wanted},
};
use crate::{
    domain::{Order, Saga, State as OrderState},
    intake::{NewOrder, Placed},
    store::{self, Entry, Request, StoredOrder, state_text},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub async fn place(
    State(api): State<Arc<Api>>,
    Correlation(correlation_id): Correlation,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&headers)?;
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("the body is no JSON: {error}; send an object such as {EXAMPLE}"))
    })?;
    let wanted = validate::order(&body).map_err(validate::problem)?;
    let request = Request { idempotency_key, fingerprint: wanted.fingerprint() };
    // In the database times have microseconds; the first answer must equal the one to a repetition.
    let now = whole_microseconds(api.clock.now());
    let expires_at = now.checked_add(api.order_deadline).map_err(Problem::internal)?;
    let stored = StoredOrder { order: pending(&wanted), created_at: now, expires_at, ended_at: None };

    let new = new_order(&stored, &request, wanted.payment_token, correlation_id)?;
    if api.intake.place(new).await? == Placed::Stored {
        info!(order = %stored.order.id, total = %stored.order.total, "order accepted");
        return Ok(accepted(&stored, false));
    }
    replayed(&api, &request).await
}

const EXAMPLE: &str =
    r#"{"customer":"ada@example.org","items":[{"sku":"COFFEE-1KG","quantity":1}],"paymentToken":"tok_visa"}"#;

/// The order with all that is stored and published with it.
fn new_order(
    stored: &StoredOrder,
    request: &Request,
    payment_token: String,
    correlation_id: CorrelationId,
) -> Result<NewOrder, Problem> {
    let StoredOrder { order, created_at, expires_at, .. } = stored;
    let mut outbox = Outbox::root(topics::ORDER_SERVICE.name, correlation_id, *created_at);
    outbox.publish(&OrderCreated {
        order_id: order.id,
        user_id: None,
        customer_email: order.customer.clone(),
        items: order.items.clone(),
        total: order.total,
        payment_token,
        pattern: Pattern::Choreography,
        expires_at: *expires_at,
    })?;
    let created = outbox.rows().last().expect("a row was published just now");
    let entry = Entry::of_outbox(created, order.total.to_string());
    outbox.publish_at(&OrderDeadlineReached { order_id: order.id }, *expires_at)?;
    Ok(NewOrder { stored: stored.clone(), request: request.clone(), entry, outbox })
}

/// The first answer again, if the request asks for the same as the first one did.
async fn replayed(api: &Api, request: &Request) -> Result<Response, Problem> {
    let key = request.idempotency_key.as_deref().unwrap_or_default();
    let (stored, fingerprint) = store::placed_with(api.database.pool(), key)
        .await?
        .ok_or_else(|| Problem::internal(format!("idempotency key {key} is taken and places no order")))?;
    if fingerprint != request.fingerprint {
        return Err(Problem::unprocessable(format!(
            "idempotency key {key:?} has placed another order ({}): send a new key with a new order, and the same body \
             with the same key",
            stored.order.id
        ))
        .with("orderId", stored.order.id.to_string()));
    }
    Ok(accepted(&stored, true))
}

fn accepted(stored: &StoredOrder, replayed: bool) -> Response {
    let StoredOrder { order, expires_at, .. } = stored;
    let id = order.id;
    // Pending even if the order has ended since: a repetition gets the answer that the first request got.
    let body = json!({
        "orderId": id,
        "state": state_text(OrderState::Pending),
        "total": order.total,
        "expiresAt": expires_at,
    });
    let location = [(header::LOCATION, format!("/orders/{id}"))];
    let mut response = (StatusCode::ACCEPTED, location, Json(body)).into_response();
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn pending(wanted: &Wanted) -> Order {
    Order {
        id: OrderId::new(),
        customer: wanted.customer.clone(),
        items: wanted.items.clone(),
        total: wanted.total,
        saga: Saga::default(),
    }
}

fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).expect("a time less than a microsecond before a time is a time")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let usable = |text: &&str| (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    match (value.to_str().ok().map(str::trim).filter(usable), values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        (_, Some(_)) => Err(Problem::bad_request("there is more than one Idempotency-Key: send one")),
        (None, None) => Err(Problem::bad_request(
            "the Idempotency-Key cannot be used: it takes 1 to 255 printable ASCII characters without spaces",
        )),
    }
}
