//! The envelope in a record's headers, and the event in its value.

use std::hint::black_box;

use event_runtime::{Events as _, HeaderName};
use jiff::Timestamp;
use shared_events::{CorrelationId, Envelope, Event as _, EventId};
use uuid::Uuid;

use super::counted;
use crate::topics::{Bought, topic::PASS_THROUGH};

type Order = Bought<PASS_THROUGH>;

/// Headers as a consumer keeps them.
type Headers = Vec<(HeaderName, Option<Vec<u8>>)>;

pub fn from_headers(records: u32) -> u32 {
    let own = |headers: Vec<(&'static str, String)>| -> Headers {
        headers.into_iter().map(|(name, value)| (name.into(), Some(value.into_bytes()))).collect()
    };
    let headers: Vec<Headers> = envelopes(records).iter().map(|envelope| own(envelope.to_headers())).collect();
    each(&headers, |headers| {
        Envelope::from_headers(headers.iter().map(|(name, value)| (&**name, value.as_deref())))
            .expect("they were made of an envelope")
    })
}

pub fn to_headers(records: u32) -> u32 {
    each(&envelopes(records), Envelope::to_headers)
}

pub fn decode(records: u32) -> u32 {
    let value = |number| serde_json::to_vec(&Order::number(number, 1000)).expect("an order can be written");
    let values: Vec<Vec<u8>> = (0..records.into()).map(value).collect();
    each(&values, |value| Order::decode(Order::TYPE, value).expect("it was made of an order"))
}

/// Does it to each, and throws away what comes of it, as a consumer does in the end.
fn each<T, R>(all: &[T], mut work: impl FnMut(&T) -> R) -> u32 {
    let mut passed = 0;
    counted(&mut || {
        for one in all {
            black_box(work(black_box(one)));
            passed += 1;
        }
    });
    passed
}

/// With all that an event in the middle of a flow has. The same in every run, ids included.
fn envelopes(records: u32) -> Vec<Envelope> {
    let envelope = |number: u32| Envelope {
        id: EventId(Uuid::from_u128(u128::from(number) << 64 | 1)),
        source: "benchmarks".to_owned(),
        event_type: Order::TYPE.to_owned(),
        time: Timestamp::from_microsecond(1_800_000_000_000_000 + i64::from(number)).expect("it is a date"),
        subject: Some(Uuid::from_u128(u128::from(number % 1000)).to_string()),
        correlation_id: Some(CorrelationId(Uuid::from_u128(u128::from(number) << 64 | 2))),
        causation_id: Some(EventId(Uuid::from_u128(u128::from(number) << 64 | 3))),
        attempt: Some(1),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        tracestate: None,
    };
    (0..records).map(envelope).collect()
}
