//! What a stranger may write to a topic: whatever it is, it is taken, refused in words or passed over, and keeps its dead
//! letter readable.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared_events::{CorrelationId, Currency, Envelope, Event, EventId, Money, Topic, topics::ORDERS};
use test_support::fuzz::{Fields, assert_presentable, fuzz};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    dead_letter::{DeadLetter, dead_letter, header, header_text, without_value},
    kinds::{Attempt, Handled, Handler, Plain},
    metrics::ConsumerMetrics,
    router::{Content, Job, Route, Router, UndecodableError},
};
use crate::{
    Delivery, EventType, HandlerError, HeaderName, Origin, PlainHandler, Record, error::Chain,
    producer::OutgoingRecord, telemetry,
};

const GROUP: &str = "payment-service.fraud";

/// With all that makes a parser talk: a set of names, a time, a number and a text that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    kind: Kind,
    at: Timestamp,
    price: Money,
    #[serde(default)]
    seen_by: Option<EventId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Short,
    VeryLong,
}

impl Event for Note {
    const TYPE: &'static str = "note.taken";
    const TOPIC: Topic = ORDERS;

    fn key(&self) -> String {
        "k".to_owned()
    }
}

struct TakeNote;

impl PlainHandler for TakeNote {
    type Event = Note;

    async fn handle(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        let again = serde_json::to_vec(&delivery.event).unwrap();
        assert_eq!(serde_json::from_slice::<Note>(&again).unwrap(), delivery.event);
        Ok(())
    }
}

/// The words that headers and values are made of.
const WORDS: [&str; 34] = [
    "ce_id",
    "ce_time",
    "ce_type",
    "ce_specversion",
    "ce_source",
    "ce_attempt",
    "content-type",
    "traceparent",
    "1.0",
    "2.0",
    "note.taken",
    "application/cloudevents+json; charset=utf-8",
    "0000-01-01T00:00:00+23:59",
    "-009999-01-02T01:59:59Z",
    "+99999-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "{00000000-0000-0000-0000-000000000000}",
    "urn:uuid:00000000-0000-0000-0000-000000000000",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    header::TARGET_GROUP,
    header::REPLAY_COUNT,
    header::ORIGINAL_TOPIC,
    header::ORIGINAL_PARTITION,
    header::ORIGINAL_OFFSET,
    header::ORIGINAL_CONSUMER_GROUP,
    header::FAILED_AT,
    header::VALUE_OMITTED,
    GROUP,
    "\"kind\":",
    "\"minor\":",
    "\"currency\":",
    "\"EUR\"",
    "very-long",
    "\"\\u001b[31m\"",
];

fn named(headers: Vec<(HeaderName, Option<Vec<u8>>)>) -> Vec<(String, Option<Vec<u8>>)> {
    headers.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
}

fn router() -> Router {
    let mut router = Router::new(GROUP);
    let taken = router.add(&[EventType::of::<Note>()], &(Arc::new(Plain(TakeNote)) as Arc<dyn Handler>));
    assert_eq!(taken, None);
    router
}

fn good() -> Fields {
    let note = Note {
        kind: Kind::VeryLong,
        at: Timestamp::UNIX_EPOCH,
        price: Money { minor: 1250, currency: Currency::EUR },
        seen_by: Some(EventId(Uuid::from_u128(1))),
    };
    let envelope = Envelope {
        id: EventId(Uuid::from_u128(2)),
        correlation_id: Some(CorrelationId(Uuid::from_u128(3))),
        causation_id: Some(EventId(Uuid::from_u128(4))),
        attempt: Some(2),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        ..Envelope::new(&note, "order-service", Timestamp::UNIX_EPOCH)
    };
    let headers = envelope.to_headers().into_iter();
    Fields {
        key: Some(b"k".to_vec()),
        value: Some(serde_json::to_vec(&note).unwrap()),
        headers: headers.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).collect(),
    }
}

fn with_value(value: &[u8]) -> Fields {
    Fields { value: Some(value.to_vec()), ..good() }
}

fn with_header(name: &str, value: &[u8]) -> Fields {
    replaced(good(), name, value)
}

fn replaced(mut fields: Fields, name: &str, value: &[u8]) -> Fields {
    fields.headers.retain(|(known, _)| known != name);
    fields.headers.push((name.to_owned(), Some(value.to_vec())));
    fields
}

fn record(topic: &str, fields: &Fields) -> Record {
    Record {
        origin: Origin { topic: topic.into(), partition: 3, offset: 42 },
        timestamp: Some(Timestamp::UNIX_EPOCH),
        key: fields.key.clone(),
        value: fields.value.clone(),
        headers: fields.headers.iter().map(|(name, value)| (name.clone().into(), value.clone())).collect(),
    }
}

fn stored(sent: OutgoingRecord) -> Record {
    record(&sent.topic, &Fields { key: sent.key, value: sent.value, headers: named(sent.headers) })
}

#[test]
fn fuzzed_records_are_handled_refused_in_words_or_passed_over() {
    let long = format!("{{\"kind\":\"{}\"}}", "x".repeat(5_000));
    let corpus = [
        good(),
        with_header(header::TARGET_GROUP, GROUP.as_bytes()),
        with_header(header::TARGET_GROUP, b"another"),
        with_header(header::REPLAY_COUNT, b"4294967295"),
        with_header("ce_time", b"-009999-01-02T01:59:59Z"),
        with_header("content-type", b"Application/JSON;charset=\"utf-8\""),
        with_header("ce_id", &[0xff, 0x1b]),
        // Each was repeated in the error as it is.
        with_value(br#"{"kind":"\u001b[2J\u0007\u0085"}"#),
        with_value(long.as_bytes()),
        with_value(br#"{"kind":"short","at":"\u001b","price":{"minor":1,"currency":"\u001b"}}"#),
        with_value(&b"[".repeat(5_000)),
        Fields { key: None, value: None, headers: Vec::new() },
    ];
    let metrics = ConsumerMetrics::default();
    fuzz(&corpus, &WORDS, |fields| {
        let record = record("orders", fields);
        if let Ok(envelope) = record.envelope() {
            let headers = envelope.to_headers();
            let again = Envelope::from_headers(headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))));
            assert_eq!(again.as_ref(), Ok(&envelope));
            let trace = envelope.traceparent.as_deref().and_then(telemetry::trace::trace_id);
            assert!(trace.is_none_or(|id| id.len() == 32));
        }
        match router().route(record, &metrics) {
            Route::Job { job, .. } => handle(&job),
            Route::Skip { record, why } => {
                let other = record.header(header::TARGET_GROUP).is_some_and(|group| group != GROUP.as_bytes());
                assert!(other || record.envelope().unwrap().event_type != Note::TYPE, "{why}");
                false
            }
        }
    });
}

/// Handles the record as a consumer does; whether it could be handled.
fn handle(job: &Job) -> bool {
    // What log lines say of it.
    let _ = (job.event_id(), job.key(), job.record.size());
    let error = match &job.content {
        Content::Event { envelope, handler } => {
            let attempt = Attempt {
                group: GROUP,
                record: &job.record,
                envelope: Some(envelope),
                replay: job.replays,
                attempt: 1,
                last_attempt: false,
                now: Timestamp::UNIX_EPOCH,
                deadline: Instant::now() + Duration::from_secs(60),
            };
            match handler.handle(attempt).now_or_never().expect("it waits for nothing") {
                Ok(handled) => {
                    assert_eq!(handled, Handled::Done);
                    return true;
                }
                Err(error) => error,
            }
        }
        Content::Undecodable(why) => UndecodableError::new(why).into(),
        Content::Raw(_) => panic!("no topic is read raw"),
    };
    assert!(matches!(error, HandlerError::Reject(_)), "it would be tried again: {error:?}");
    assert_presentable(Chain(error.source_error().as_ref()));
    false
}

#[test]
fn fuzzed_records_keep_everything_in_their_dead_letters_and_replays() {
    let mut replayed = with_header(header::REPLAY_COUNT, b"7");
    replayed.headers.push((header::TARGET_GROUP.to_owned(), Some(GROUP.into())));
    replayed.headers.push(("kafka_dlt-exception-stacktrace".to_owned(), None));
    let corpus = [good(), replayed, Fields { key: None, value: None, headers: Vec::new() }];
    fuzz(&corpus, &WORDS, |fields| {
        let record = record("orders", fields);
        let value = String::from_utf8_lossy(fields.value.as_deref().unwrap_or_default()).into_owned();
        let error = HandlerError::retry(value.clone());
        let letter = stored(dead_letter(GROUP, &record, &error, 4, 7, Timestamp::UNIX_EPOCH));
        let read = DeadLetter::read(&letter).expect("ours say where they come from");
        let expected = DeadLetter {
            original: record.origin.clone(),
            group: GROUP.to_owned(),
            error_class: "retries-exhausted".to_owned(),
            error: value.chars().take(4096).collect(),
            attempts: 4,
            failed_at: Some(Timestamp::UNIX_EPOCH),
            replay_count: 7,
            value_omitted: false,
        };
        assert_eq!(read, expected);
        let replay = read.replay(&letter);
        assert_eq!((&*replay.topic, replay.partition), (&*record.origin.topic, Some(record.origin.partition)));
        assert_eq!((&replay.key, &replay.value), (&record.key, &record.value));
        let about = |name: &str| name.contains("dlt-") || name == header::TARGET_GROUP;
        let own = |headers: &[(HeaderName, Option<Vec<u8>>)]| {
            headers.iter().filter(|(name, _)| !about(name)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(own(&replay.headers), own(&record.headers));
        let short = stored(without_value(dead_letter(GROUP, &record, &error, 4, 7, Timestamp::UNIX_EPOCH)));
        assert_eq!(DeadLetter::read(&short), Some(DeadLetter { value_omitted: true, ..expected }));
        // Half of the records would be handled, or there is little to lose.
        record.envelope().is_ok()
    });
}

#[test]
fn fuzzed_dead_letters_are_replayed_for_their_group_or_refused() {
    let letter = |fields: &Fields| {
        let error = HandlerError::reject("never");
        let sent = dead_letter(GROUP, &record("orders", fields), &error, 4, 7, Timestamp::UNIX_EPOCH);
        Fields { key: sent.key, value: sent.value, headers: named(sent.headers) }
    };
    let with = |name: &str, value: &[u8]| replaced(letter(&good()), name, value);
    let corpus = [
        letter(&good()),
        with(header::REPLAY_COUNT, b"4294967295"),
        with(header::ORIGINAL_CONSUMER_GROUP, b""),
        with(header::FAILED_AT, b"yesterday"),
        // Somebody's numbers as text, and numbers that no record has.
        with(header::ORIGINAL_PARTITION, b"3"),
        with(header::ORIGINAL_PARTITION, &(-1_i32).to_be_bytes()),
        with(header::ORIGINAL_OFFSET, &i64::MIN.to_be_bytes()),
        good(),
    ];
    let metrics = ConsumerMetrics::default();
    fuzz(&corpus, &WORDS, |fields| {
        let letter = record("orders.payment-service.fraud.dlt", fields);
        for (name, value) in &letter.headers {
            // As it is shown.
            let _ = header_text(name, value.as_deref().unwrap_or_default());
        }
        let Some(read) = DeadLetter::read(&letter) else { return false };
        assert!(read.original.partition >= 0 && read.original.offset >= 0, "no record stands at {}", read.original);
        let replay = read.replay(&letter);
        let count = |name| replay.headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!((count(header::TARGET_GROUP), count(header::REPLAY_COUNT)), (1, 1));
        let replay = stored(replay);
        assert_eq!(replay.header(header::TARGET_GROUP), Some(read.group.as_bytes()));
        assert_eq!(DeadLetter::read(&replay), None, "a replay is no dead letter");
        if let Route::Job { job, .. } = router().route(replay, &metrics) {
            assert_eq!(read.group, GROUP);
            assert_eq!(job.replays, read.replay_count.saturating_add(1));
        }
        true
    });
}
