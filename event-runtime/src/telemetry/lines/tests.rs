//! Golden lines.

use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt;

use super::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<String>>);

impl WriteLine for Written {
    fn write_line(&self, line: &str) {
        self.0.lock().unwrap().push_str(line);
    }
}

/// What `log` writes, at a quarter past nine.
fn written(format: LogFormat, colour: bool, filter: &str, log: impl FnOnce()) -> String {
    let lines = Written::default();
    let layer = Lines {
        format,
        colours: colour.then(Mutex::default),
        write: lines.clone(),
        now: || "2026-11-21T09:15:07.0425Z".parse().unwrap(),
    };
    let filter = LogFilter::new(filter).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer.with_filter(filter)), log);
    lines.0.lock().unwrap().clone()
}

fn text(log: impl FnOnce()) -> String {
    written(LogFormat::Text, false, "info", log)
}

fn in_an_attempt(log: impl FnOnce()) {
    tracing::info_span!(SERVICE_SPAN, service = "payment-service").in_scope(|| {
        tracing::info_span!(
            "attempt",
            otel.kind = "consumer",
            event = "order.created",
            event_id = 7,
            attempt = 2,
            correlation_id = None::<&str>
        )
        .in_scope(log);
    });
}

#[test]
fn a_state_change_is_one_line_with_the_fields_around_it() {
    let line = text(|| in_an_attempt(|| tracing::info!(order = "o-1", "charged")));
    assert_eq!(
        line,
        "09:15:07.042  payment-service    charged                order=o-1 event=order.created event_id=7 attempt=2\n"
    );
}

#[test]
fn an_id_is_shown_under_its_first_name_only() {
    let id = "0198a2f0-7d2c-7000-8000-000000000001";
    let line = text(|| {
        tracing::info_span!("attempt", key = id, attempt = 1)
            .in_scope(|| tracing::info!(order = id, tries = 1, "charged"));
    });
    assert_eq!(line, format!("09:15:07.042                     charged                order={id} tries=1 attempt=1\n"));
}

#[test]
fn a_line_without_fields_ends_with_its_message() {
    let line = text(|| tracing::info!("listening on http://127.0.0.1:8080"));
    assert_eq!(line, "09:15:07.042                     listening on http://127.0.0.1:8080\n");
}

#[test]
fn warnings_and_errors_say_so() {
    let lines = text(|| {
        in_an_attempt(|| tracing::warn!(event_id = 8, error = "no answer within 5s", "attempt failed"));
        tracing::error!(tries = 3, ok = false, "gave up");
    });
    let expected = "\
09:15:07.042  payment-service    WARN  attempt failed   event_id=8 error=\"no answer within 5s\" event=order.created attempt=2
09:15:07.042                     ERROR gave up          tries=3 ok=false
";
    assert_eq!(lines, expected);
}

#[test]
fn below_info_the_module_is_named() {
    let line = written(LogFormat::Text, false, "debug", || tracing::debug!("looking"));
    assert_eq!(line, "09:15:07.042                     DEBUG event_runtime::telemetry::lines::tests: looking\n");
}

#[test]
fn what_is_filtered_out_still_lends_its_fields() {
    let lines = written(LogFormat::Text, false, "warn", || {
        in_an_attempt(|| {
            tracing::info!("charged");
            tracing::warn!("late");
        });
    });
    let expected = "09:15:07.042  payment-service    WARN  late             event=order.created event_id=7 attempt=2\n";
    assert_eq!(lines, expected);
}

#[test]
fn an_entry_never_breaks_its_line() {
    let line = text(|| tracing::info!(error = "two\nlines", empty = "", "failed\nbadly"));
    assert_eq!(line, "09:15:07.042                     failed\\nbadly          error=\"two\\nlines\"\n");
}

#[test]
fn every_service_has_a_colour_of_its_own() {
    let lines = written(LogFormat::Text, true, "info", || {
        for service in ["order-service", "payment-service", "order-service"] {
            tracing::info_span!(SERVICE_SPAN, service).in_scope(|| tracing::info!("hello"));
        }
    });
    let colours: Vec<bool> = lines.lines().map(|line| line.contains("\x1b[36morder-service    \x1b[0m")).collect();
    assert_eq!(colours, [true, false, true]);
    assert!(lines.lines().nth(1).unwrap().contains("\x1b[35mpayment-service  \x1b[0m"), "{lines}");
}

#[test]
fn json_is_flat_and_keeps_numbers() {
    let line = written(LogFormat::Json, false, "info", || {
        in_an_attempt(|| tracing::info!(order = "o-1", amount = 12.5, "charged"));
    });
    let value: Value = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "time": "2026-11-21T09:15:07.0425Z",
        "level": "info",
        "message": "charged",
        "target": "event_runtime::telemetry::lines::tests",
        "service": "payment-service",
        "order": "o-1",
        "amount": 12.5,
        "event": "order.created",
        "event_id": 7,
        "attempt": 2,
    });
    assert_eq!(value, expected);
}

#[test]
fn an_error_is_shown_with_its_causes() {
    let inner = std::io::Error::other("connection refused");
    let outer = crate::HandlerError::retry(inner);
    let line = text(|| tracing::warn!(error = &outer as &dyn std::error::Error, "attempt failed"));
    assert!(line.ends_with("error=\"the record could not be handled this time: connection refused\"\n"), "{line}");
}

#[test]
fn libraries_are_heard_from_warnings_up_unless_they_are_named() {
    let log = || {
        tracing::info!(target: "sqlx::pool", "slow");
        tracing::warn!(target: "sqlx::pool", "lost");
    };
    assert_eq!(written(LogFormat::Text, false, "debug", log).lines().count(), 1);
    assert_eq!(written(LogFormat::Text, false, "info,sqlx=debug", log).lines().count(), 2);
    assert_eq!(written(LogFormat::Text, false, "off", log).lines().count(), 0);
}
