//! What surrounds every request, from the outside in: correlation id and span → metrics → caught panic → time limit →
//! body limit → route. The answers of all of them, and of unknown paths and methods, are [`Problem`]s.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};
use tracing::{Instrument, Span, field};

use super::{Correlation, Problem, correlation};
use crate::telemetry::{metrics::Metrics, trace};

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) request_timeout: Duration,
    pub(crate) max_body_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

/// How long requests took, by method, route and status.
#[derive(Clone)]
pub(crate) struct RequestMetrics(Family<RequestLabels, Histogram, fn() -> Histogram>);

impl RequestMetrics {
    pub(crate) fn register(metrics: &Metrics) -> RequestMetrics {
        let family = Family::new_with_constructor(histogram as fn() -> Histogram);
        metrics.register("http_server_request_duration_seconds", "Time from request to response", family.clone());
        RequestMetrics(family)
    }

    fn observe(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let labels = RequestLabels { method: label(method), route: route.to_owned(), status: status.as_u16() };
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// Methods are whatever a client sends: unknown ones share a label, so that nobody can make up time series.
fn label(method: &Method) -> String {
    const KNOWN: [Method; 7] =
        [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD, Method::OPTIONS];
    if KNOWN.contains(method) { method.to_string() } else { "other".to_owned() }
}

#[derive(Clone)]
struct Surroundings {
    service: &'static str,
    limits: Limits,
    metrics: RequestMetrics,
}

/// `routes` with their surroundings.
pub(crate) fn finish(routes: Router, service: &'static str, limits: Limits, metrics: RequestMetrics) -> Router {
    let surroundings = Arc::new(Surroundings { service, limits, metrics });
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits.max_body_bytes))
        .layer(middleware::from_fn(surround))
        .layer(Extension(surroundings))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

async fn surround(
    Extension(surroundings): Extension<Arc<Surroundings>>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = route.map_or_else(|| "unknown".to_owned(), |route| route.as_str().to_owned());
    let correlation = Correlation::of(request.headers());
    request.extensions_mut().insert(correlation);
    let span = span(&surroundings, &request, &route, correlation);

    let mut response = limited(surroundings.limits, request, next).instrument(span.clone()).await;

    let status = response.status();
    span.record("status", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "error");
    }
    if let Ok(value) = HeaderValue::from_str(&correlation.0.to_string()) {
        response.headers_mut().insert(correlation::HEADER, value);
    }
    let took = started.elapsed();
    tracing::debug!(parent: &span, milliseconds = took.as_millis() as u64, "request answered");
    surroundings.metrics.observe(&method, &route, status, took);
    response
}

fn span(surroundings: &Surroundings, request: &Request, route: &str, Correlation(id): Correlation) -> Span {
    let span = tracing::info_span!(
        "request",
        service = surroundings.service,
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        method = %request.method(),
        route,
        status = field::Empty,
        correlation_id = %id,
    );
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    trace::set_parent(&span, text("traceparent"), text("tracestate"));
    span
}

async fn limited(limits: Limits, request: Request, next: Next) -> Response {
    let too_large = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|length| length > limits.max_body_bytes as u64);
    if too_large {
        return body_too_large(limits);
    }
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limits.request_timeout, answer).await {
        // A body without a length is found too large while it is read, by an extractor that does not know the limit.
        Ok(Ok(response)) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => body_too_large(limits),
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => Problem::internal(format!("the handler panicked: {}", panic_text(&*panic))).into_response(),
        Err(_) => {
            Problem::unavailable(format!("the request took longer than {:?}", limits.request_timeout)).into_response()
        }
    }
}

fn body_too_large(limits: Limits) -> Response {
    let detail = format!("the body is larger than {} bytes", limits.max_body_bytes);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
