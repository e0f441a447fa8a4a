//! What every service's HTTP has in common: problem details (RFC 9457) for everything that goes wrong, extractors that
//! say what was wrong, a span, a correlation id, a time limit and metrics for every request.

mod correlation;
mod extract;
mod layers;
mod problem;
mod routes;
mod starting;

pub use correlation::Correlation;
pub use extract::{Json, Path, Query};
pub(crate) use layers::{Limits, RequestMetrics, finish};
pub use problem::Problem;
pub(crate) use routes::{Operations, operations};
pub(crate) use starting::once_migrated;
