//! W3C trace context (<https://www.w3.org/TR/trace-context/>) to and from the current span. Ids are made and handed on
//! whether or not traces are exported, so that a timeline can always name the trace.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `traceparent` of the current span; `None` where nothing traces, as in most unit tests.
pub fn current_traceparent() -> Option<String> {
    traceparent(&Span::current())
}

/// `tracestate` of the current span; `None` when it is empty.
pub fn current_tracestate() -> Option<String> {
    let state = Span::current().context().span().span_context().trace_state().header();
    Some(state).filter(|state| !state.is_empty())
}

/// `traceparent` of `span`.
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags() & TraceFlags::SAMPLED)
    })
}

/// Makes `span` the continuation of what `traceparent` says. Call it before the span is entered. A `traceparent` that is
/// missing or cannot be read begins a new trace, as the standard has it.
pub fn set_parent(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    let Some(parent) = traceparent.and_then(|header| parse(header, tracestate)) else { return };
    // An error means that nothing traces, or that the span had begun: there is nothing left to continue.
    span.set_parent(Context::new().with_remote_span_context(parent)).ok();
}

/// The trace id in a `traceparent`, for people to look up.
pub fn trace_id(traceparent: &str) -> Option<String> {
    parse(traceparent, None).map(|context| context.trace_id().to_string())
}

fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A later version may have more parts; this one has four, and ff is forbidden.
    if !is_hex(version, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    if !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = tracestate.and_then(|state| state.parse().ok()).unwrap_or(TraceState::NONE);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, state)).filter(SpanContext::is_valid)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
