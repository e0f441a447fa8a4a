//! Traces, against a collector that keeps what it is sent.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use event_runtime::{
    consumer::dead_letter::DeadLetter,
    telemetry::{LogOptions, Telemetry, dispatch, trace},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::json;
use shared_events::{Envelope, Event};
use test_support::records;
use tracing::{info_span, subscriber::NoSubscriber};

use crate::{
    consumer::{self, scene::Note},
    service::scene::{Pong, SERVICE, Scene, ready},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a collector was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    async fn start() -> (Collector, String) {
        let collector = Collector::default();
        let routes = Router::new().route("/v1/traces", post(receive)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (collector, url)
    }

    /// Every span, with the `service.name` it was sent under.
    fn spans(&self) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        for resource_spans in self.0.lock().unwrap().iter().flat_map(|request| request.resource_spans.clone()) {
            let service = text(&resource_spans.resource.unwrap_or_default().attributes, "service.name");
            let found = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| (service.clone().unwrap_or_default(), span)));
        }
        spans
    }

    fn span(&self, name: &str) -> (String, Span) {
        let spans = self.spans();
        let names: Vec<String> = spans.iter().map(|(_, span)| span.name.clone()).collect();
        spans.into_iter().find(|(_, span)| span.name == name).unwrap_or_else(|| panic!("no {name} among {names:?}"))
    }
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.0.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        other => Some(format!("{other:?}")),
    }
}

/// A subscriber for this thread, which alone of all threads of the tests has one.
///
/// While a process has one dispatcher only, tracing asks the thread that comes to a span first whether anybody wants it,
/// and remembers the answer for all (`Dispatchers::rebuilder` of tracing-core 0.1): a test without telemetry would answer
/// no. So there are two more, for good.
fn of_this_thread(endpoint: &str) -> (tracing::Dispatch, Telemetry) {
    static OTHERS: OnceLock<[tracing::Dispatch; 2]> = OnceLock::new();
    OTHERS.get_or_init(|| [(); 2].map(|()| tracing::Dispatch::new(NoSubscriber::new())));
    dispatch(&options(endpoint)).unwrap()
}

fn options(endpoint: &str) -> LogOptions {
    LogOptions { otlp_endpoint: Some(endpoint.to_owned()), service: "local-stack", ..LogOptions::default() }
        .default_filter("off")
}

#[tokio::test]
async fn spans_reach_the_collector_under_the_name_of_their_service() {
    let (collector, url) = Collector::start().await;
    let (dispatch, telemetry) = of_this_thread(&format!("{url}/"));
    tracing::dispatcher::with_default(&dispatch, || {
        let charge = info_span!("charge", service = "payment-service", otel.kind = "client", order = "o-1");
        trace::set_parent(&charge, Some(PARENT), None);
        charge.in_scope(|| info_span!("wait").in_scope(|| tracing::info!("charged")));
        info_span!("reserve", service = "inventory-service").in_scope(|| tracing::error!("no stock"));
        info_span!("samples").in_scope(|| {});
        // What does no work of ours is no part of a trace.
        info_span!(target: "hyper::client", "connect").in_scope(|| {});
    });
    telemetry.shutdown().await;

    let (service, charge) = collector.span("charge");
    assert_eq!(service, "payment-service");
    assert_eq!(hex(&charge.trace_id), TRACE);
    assert_eq!(hex(&charge.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(charge.kind(), SpanKind::Client);
    assert_eq!(text(&charge.attributes, "order").as_deref(), Some("o-1"));

    let (service, wait) = collector.span("wait");
    assert_eq!((service.as_str(), &wait.parent_span_id), ("payment-service", &charge.span_id), "from its parent");
    assert_eq!(wait.events[0].name, "charged");

    let (service, reserve) = collector.span("reserve");
    assert_eq!(service, "inventory-service");
    assert_eq!(reserve.status.unwrap().code, 2, "an error was logged in it");
    assert_eq!(collector.span("samples").0, "local-stack", "nobody's spans are the process's");
    assert_eq!(collector.spans().len(), 4, "{:?}", collector.spans());
}

#[tokio::test]
async fn one_trace_runs_from_a_request_through_the_outbox_and_a_topic_to_the_next_event() {
    let (collector, url) = Collector::start().await;
    let (dispatch, telemetry) = of_this_thread(&url);
    // One thread, so that the default of this thread is everybody's.
    let _default = tracing::dispatcher::set_default(&dispatch);
    let scene = Scene::new();
    let service = scene.start().await;
    ready(&service).await;

    let client = reqwest::Client::new();
    let request = client.post(service.url("/pings")).header("traceparent", PARENT).json(&json!({ "key": "a" }));
    request.send().await.unwrap();
    let pongs = records::read_until(&scene.kafka.config(), Pong::TOPIC.name, Duration::from_secs(20), |found| {
        !found.is_empty()
    })
    .await;
    let header = String::from_utf8_lossy(pongs[0].header("traceparent").unwrap()).into_owned();
    assert_eq!(trace::trace_id(&header).as_deref(), Some(TRACE));
    service.stop().await.unwrap();
    telemetry.shutdown().await;

    let (service, request) = collector.span("POST /pings");
    assert_eq!((service.as_str(), request.kind()), (SERVICE, SpanKind::Server));
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    let attempts: Vec<(String, Span)> =
        collector.spans().into_iter().filter(|(_, span)| span.kind() == SpanKind::Consumer).collect();
    let (service, attempt) = &attempts[0];
    assert_eq!(service, SERVICE);
    assert_eq!((hex(&attempt.trace_id).as_str(), &attempt.parent_span_id), (TRACE, &request.span_id));
    assert!(header.contains(&hex(&attempt.span_id)), "the attempt is the next event's parent");
}

#[tokio::test]
async fn one_trace_runs_through_retries_the_dead_letter_and_its_replay() {
    let (collector, url) = Collector::start().await;
    let (dispatch, telemetry) = of_this_thread(&url);
    let _default = tracing::dispatcher::set_default(&dispatch);
    let scene = consumer::scene::Scene::new().await;
    let consumer = scene.start(scene.transactional());
    let failing = Note::new("a", "fail 99 times");
    let envelope =
        Envelope { traceparent: Some(PARENT.to_owned()), ..Envelope::new(&failing, "test", jiff::Timestamp::now()) };
    scene.publish_with(&failing, &envelope, &[]).await;

    let letters = scene.dead_letters(1).await;
    assert_eq!(letters[0].header("traceparent"), Some(PARENT.as_bytes()), "an operator finds the trace by its letter");
    let replay = DeadLetter::read(&letters[0]).unwrap().replay(&letters[0]);
    let mended = serde_json::to_vec(&Note::new("a", "ok")).unwrap();
    scene.publish_record("a", Some(mended), replay.headers).await;
    scene.script.wait_for(1).await;
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
    telemetry.shutdown().await;

    let mut attempts: Vec<Span> =
        collector.spans().into_iter().map(|(_, span)| span).filter(|span| span.kind() == SpanKind::Consumer).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let numbers: Vec<_> = attempts.iter().map(|span| text(&span.attributes, "attempt").unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3", "3", "1"], "three attempts, the dead letter, the replay");
    for span in &attempts {
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, "00f067aa0ba902b7"));
    }
    let failed: Vec<_> = attempts.iter().map(|span| span.status.clone().unwrap_or_default().code == 2).collect();
    assert_eq!(failed, [false, false, false, true, false], "an error was logged for the dead letter alone");
}

#[tokio::test]
async fn a_collector_that_is_away_does_not_hold_up_the_end() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (dispatch, telemetry) = of_this_thread(&format!("http://{nobody}"));
    tracing::dispatcher::with_default(&dispatch, || info_span!("charge").in_scope(|| {}));
    let began = Instant::now();
    telemetry.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_named() {
    let error = dispatch(&options("http://[nonsense")).err().unwrap();
    assert!(
        error.to_string().contains("http://[nonsense") && error.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT")
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
