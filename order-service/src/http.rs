//! The HTTP API: `POST /orders`, `GET /orders`, `GET /orders/{id}`, `GET /products`. Everything that goes wrong is a
//! problem detail (RFC 9457) that says what to do.

mod place;
mod show;
mod validate;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use event_runtime::{Clock, Database};

/// What the routes work with.
pub struct Api {
    pub database: Database,
    pub clock: Clock,
    /// How long an order may stay pending.
    pub order_deadline: Duration,
}

/// The routes of order-service.
pub fn routes(api: Api) -> Router {
    Router::new()
        .route("/orders", post(place::place).get(show::list))
        .route("/orders/{id}", get(show::order))
        .route("/products", get(show::products))
        .with_state(Arc::new(api))
}
