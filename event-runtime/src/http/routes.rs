//! What operators and their tools ask every service.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures_util::future::BoxFuture;
use serde_json::json;

use super::{Json, Path, Problem};
use crate::telemetry::metrics::Metrics;

/// Answers the operators' questions.
pub(crate) trait Operations: Send + Sync + 'static {
    /// Why the service cannot do its work now; empty when it can.
    fn not_ready(&self) -> BoxFuture<'_, Vec<String>>;

    /// What the service waits for while its schema is not there; none once it is.
    fn before_schema(&self) -> Option<String>;

    /// What the service is doing for `key`.
    fn inspect<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<serde_json::Value, Problem>>;

    /// What the service counts.
    fn metrics(&self) -> &Metrics;
}

/// `/health`, `/ready`, `/metrics` and `/inspect/{key}`.
pub(crate) fn operations(operations: Arc<dyn Operations>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/inspect/{key}", get(inspect))
        .with_state(operations)
}

/// 200 as long as the process can answer: restarting it would mend nothing.
async fn health() -> impl IntoResponse {
    Json(json!({ "status": "healthy" }))
}

async fn ready(State(operations): State<Arc<dyn Operations>>) -> impl IntoResponse {
    let reasons = operations.not_ready().await;
    match reasons.is_empty() {
        true => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reasons": reasons }))),
    }
}

async fn metrics(State(operations): State<Arc<dyn Operations>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], operations.metrics().encode())
}

async fn inspect(
    State(operations): State<Arc<dyn Operations>>,
    Path(key): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    operations.inspect(&key).await.map(Json)
}
