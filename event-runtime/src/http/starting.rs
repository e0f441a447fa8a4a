//! Before the schema is there, a service's own routes would ask for tables that do not exist: they are refused, so that
//! a client tries again instead of taking the first moments of a first start for a fault.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use super::{Operations, Problem};

/// `routes`, refused with 503 for as long as `operations` waits for the schema.
pub(crate) fn once_migrated(routes: Router, operations: Arc<dyn Operations>) -> Router {
    routes.layer(middleware::from_fn_with_state(operations, refuse_before))
}

async fn refuse_before(State(operations): State<Arc<dyn Operations>>, request: Request, next: Next) -> Response {
    let Some(reason) = operations.before_schema() else { return next.run(request).await };
    // Nothing was stored, so a request without a key may be repeated as it is.
    let same_key = match request.headers().contains_key("idempotency-key") {
        true => ", with the same Idempotency-Key",
        false => "",
    };
    Problem::unavailable(format!("the service is starting: {reason}; try again in a moment{same_key}")).into_response()
}
