use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use shared_events::CorrelationId;

/// The header that carries a correlation id in requests and responses.
pub(crate) const HEADER: &str = "x-correlation-id";

/// The request's correlation id: the one in `x-correlation-id` where that is a UUID, else a new one. The response
/// carries it too, and so should every event that the request causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation(pub CorrelationId);

impl Correlation {
    pub(crate) fn of(headers: &HeaderMap) -> Correlation {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Correlation(given.unwrap_or_else(CorrelationId::new))
    }
}

impl<S: Sync> FromRequestParts<S> for Correlation {
    type Rejection = Infallible;

    /// The middleware has put it there; routes served without it (in a unit test) get a new one.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Correlation, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Correlation::of(&parts.headers)))
    }
}
