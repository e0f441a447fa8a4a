//! Stock over HTTP: look, and correct by hand.

use axum::{Router, extract::State, routing::get};
use event_runtime::{
    Database,
    http::{Json, Path, Problem},
};
use serde::{Deserialize, Serialize};

use crate::{domain::StockLevel, store};

/// More of one product than this is a slip of the finger.
const MAX_AVAILABLE: i64 = 1_000_000_000;

/// What `GET /stock` answers.
#[derive(Serialize)]
struct Stock {
    stock: Vec<StockLevel>,
}

/// What `PUT /stock/{sku}` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Adjustment {
    available: i64,
}

/// `GET /stock`, `GET` and `PUT /stock/{sku}`.
pub fn routes(database: Database) -> Router {
    Router::new().route("/stock", get(list)).route("/stock/{sku}", get(show).put(adjust)).with_state(database)
}

async fn list(State(database): State<Database>) -> Result<Json<Stock>, Problem> {
    Ok(Json(Stock { stock: store::all(database.pool()).await? }))
}

async fn show(State(database): State<Database>, Path(sku): Path<String>) -> Result<Json<StockLevel>, Problem> {
    store::find(database.pool(), &sku).await?.map(Json).ok_or_else(|| unknown(&sku))
}

async fn adjust(
    State(database): State<Database>,
    Path(sku): Path<String>,
    Json(Adjustment { available }): Json<Adjustment>,
) -> Result<Json<StockLevel>, Problem> {
    if !(0..=MAX_AVAILABLE).contains(&available) {
        return Err(Problem::unprocessable(format!("available must be from 0 to {MAX_AVAILABLE}, not {available}")));
    }
    let mut tx = database.begin().await?;
    let level = store::set_available(&mut tx, &sku, available).await?.ok_or_else(|| unknown(&sku))?;
    tx.commit().await?;
    tracing::info!(sku, available, adjustments = level.adjustments, "stock adjusted");
    Ok(Json(level))
}

fn unknown(sku: &str) -> Problem {
    Problem::not_found(format!("there is no product {sku:?}; GET /stock lists all"))
}
