//! What went out, over HTTP.

use axum::{Router, extract::State, routing::get};
use event_runtime::{
    Database,
    http::{Json, Problem, Query},
};
use serde::{Deserialize, Serialize};
use shared_events::OrderId;

use crate::store::{self, Mail};

const LATEST: i64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    order: Option<OrderId>,
}

#[derive(Serialize)]
struct Mails {
    mails: Vec<Mail>,
}

/// `GET /mails`: the latest, or with `?order=` those about one order.
pub fn routes(database: Database) -> Router {
    Router::new().route("/mails", get(list)).with_state(database)
}

async fn list(
    State(database): State<Database>,
    Query(Filter { order }): Query<Filter>,
) -> Result<Json<Mails>, Problem> {
    let mails = match order {
        Some(order) => store::of_order(database.pool(), order).await?,
        None => store::latest(database.pool(), LATEST).await?,
    };
    Ok(Json(Mails { mails }))
}
