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

use crate::intake::Intake;

/// What the routes work with.
struct Api {
    database: Database,
    intake: Intake,
    clock: Clock,
    order_deadline: Duration,
}

/// The routes of order-service. Orders may stay pending for `order_deadline`.
///
/// # Panics
/// Outside of a tokio runtime: new orders are stored by a task.
pub fn routes(database: Database, clock: Clock, order_deadline: Duration) -> Router {
    let api = Api { intake: Intake::start(database.clone()), database, clock, order_deadline };
    Router::new()
        .route("/orders", post(place::place).get(show::list))
        .route("/orders/{id}", get(show::order))
        .route("/products", get(show::products))
        .with_state(Arc::new(api))
}
