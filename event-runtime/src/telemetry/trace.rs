//! W3C trace context (<https://www.w3.org/TR/trace-context/>) to and from the current span. Ids are made and handed on
//! whether or not traces are exported, so that a timeline can always name the trace.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `tracestate` of `span`; `None` when it is empty.
pub fn tracestate(span: &Span) -> Option<String> {
    let state = span.context().span().span_context().trace_state().header();
    Some(state).filter(|state| !state.is_empty())
}

/// `traceparent` of `span`; `None` where nothing traces, as in most unit tests.
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
    if span.is_disabled() {
        return;
    }
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

#[cfg(test)]
mod tests {
    use tracing::info_span;

    use super::*;
    use crate::telemetry::{LogOptions, dispatch};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced<T>(work: impl FnOnce() -> T) -> T {
        let (dispatch, _telemetry) = dispatch(&LogOptions::default().default_filter("off")).unwrap();
        tracing::dispatcher::with_default(&dispatch, work)
    }

    #[test]
    fn a_trace_goes_on_from_a_header_to_the_next_header() {
        traced(|| {
            let span = info_span!("attempt");
            set_parent(&span, Some(PARENT), Some("vendor=1"));
            let (header, inner) =
                span.in_scope(|| (traceparent(&Span::current()).unwrap(), traceparent(&info_span!("inner"))));
            assert_eq!(trace_id(&header).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
            assert!(!header.contains("00f067aa0ba902b7"), "a span of its own: {header}");
            assert_eq!(tracestate(&span).as_deref(), Some("vendor=1"));
            assert_eq!(trace_id(&inner.unwrap()), trace_id(&header), "spans inside belong to the same trace");
        });
    }

    #[test]
    fn without_a_header_a_new_trace_begins() {
        traced(|| {
            for header in [
                None,
                Some("nonsense"),
                Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
                Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
                Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                Some("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
                Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
            ] {
                let span = info_span!("attempt");
                set_parent(&span, header, None);
                let made = traceparent(&span).unwrap();
                assert_ne!(trace_id(&made).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"), "{header:?}");
                assert_eq!(tracestate(&span), None);
            }
        });
    }

    #[test]
    fn a_later_version_of_the_header_is_read_as_far_as_it_is_known() {
        assert!(trace_id(&PARENT.replacen("00", "01", 1)).is_some());
        assert!(trace_id(&(PARENT.replacen("00", "01", 1) + "-more")).is_some());
    }

    #[test]
    fn where_nothing_traces_there_is_no_header() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            assert_eq!(traceparent(&info_span!("attempt")), None);
        });
    }

    /// Roughly what a record pays for its trace ids: `cargo test -p event-runtime --release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn cost_of_a_span_without_export() {
        traced(|| {
            let began = std::time::Instant::now();
            let rounds = 100_000;
            for round in 0..rounds {
                let span = info_span!("attempt", service = "s", event = "order.created", event_id = round, attempt = 1);
                set_parent(&span, Some(PARENT), None);
                assert!(traceparent(&span).is_some());
            }
            println!("{:?} a span", began.elapsed() / rounds);
        });
    }
}
