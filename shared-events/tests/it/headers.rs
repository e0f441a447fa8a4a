use jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*, sample::select};
use shared_events::{CorrelationId, Envelope, EnvelopeError, EventId, header};
use uuid::Uuid;

const NAMES: [&str; 14] = [
    header::SPEC_VERSION,
    header::ID,
    header::SOURCE,
    header::TYPE,
    header::TIME,
    header::SUBJECT,
    header::CORRELATION_ID,
    header::CAUSATION_ID,
    header::ATTEMPT,
    header::CONTENT_TYPE,
    header::TRACE_PARENT,
    header::TRACE_STATE,
    "kafka_dlt-original-topic",
    "",
];

fn envelopes() -> impl Strategy<Value = Envelope> {
    let uuid = || any::<u128>().prop_map(Uuid::from_u128);
    let times = (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
        .prop_map(|nanos| Timestamp::from_nanosecond(nanos).unwrap());
    let required = (uuid(), any::<String>(), any::<String>(), times, option::of(any::<String>()));
    let optional = (
        option::of(uuid()),
        option::of(uuid()),
        option::of(any::<u32>()),
        option::of(any::<String>()),
        option::of(any::<String>()),
    );
    (required, optional).prop_map(|((id, source, event_type, time, subject), optional)| Envelope {
        id: EventId(id),
        source,
        event_type,
        time,
        subject,
        correlation_id: optional.0.map(CorrelationId),
        causation_id: optional.1.map(EventId),
        attempt: optional.2,
        traceparent: optional.3,
        tracestate: optional.4,
    })
}

fn read(headers: &[(&'static str, String)]) -> Result<Envelope, EnvelopeError> {
    Envelope::from_headers(headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(envelope in envelopes()) {
        prop_assert_eq!(read(&envelope.to_headers()), Ok(envelope));
    }

    #[test]
    fn order_of_headers_and_foreign_ones_do_not_matter(envelope in envelopes(), foreign in vec(any::<u8>(), 0..20), turn in 0_usize..12) {
        let headers = envelope.to_headers();
        let mut headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let turn = turn % headers.len();
        headers.rotate_left(turn);
        headers.push(("x-foreign", Some(&foreign)));
        headers.push(("x-foreign", None));
        prop_assert_eq!(Envelope::from_headers(headers), Ok(envelope));
    }

    #[test]
    fn any_bytes_in_headers_are_an_answer_never_a_panic(
        headers in vec((select(NAMES.to_vec()), option::of(vec(any::<u8>(), 0..40))), 0..16),
    ) {
        // A record of arbitrary bytes that happens to be an envelope would be a wonder; what counts is the return.
        let read = Envelope::from_headers(headers.iter().map(|(name, value)| (*name, value.as_deref())));
        prop_assert!(read.is_err());
    }

    #[test]
    fn one_damaged_header_is_an_answer_never_a_panic(
        envelope in envelopes(), position in 0_usize..12, damage in option::of(vec(any::<u8>(), 0..40)),
    ) {
        let headers = envelope.to_headers();
        let mut headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let position = position % headers.len();
        headers[position].1 = damage.as_deref();
        if let Err(error) = Envelope::from_headers(headers.iter().copied()) {
            let name = headers[position].0;
            prop_assert!(error.to_string().contains(name), "{} damaged, error: {}", name, error);
        }
    }
}

#[test]
fn a_header_that_cannot_be_read_is_named_with_what_was_expected() {
    let table = [
        (header::SPEC_VERSION, "2.0", "header ce_specversion is \"2.0\", which is no version this reader knows (1.0)"),
        (header::ID, "7", "header ce_id is \"7\", which is no UUID"),
        (header::TIME, "yesterday", "header ce_time is \"yesterday\", which is no RFC 3339 time"),
        (header::CORRELATION_ID, "x", "header ce_correlationid is \"x\", which is no UUID"),
        (header::CAUSATION_ID, "x", "header ce_causationid is \"x\", which is no UUID"),
        (header::ATTEMPT, "-1", "header ce_attempt is \"-1\", which is no number"),
        (header::CONTENT_TYPE, "text/html", "header content-type is \"text/html\", which is no JSON media type"),
    ];
    for (name, value, message) in table {
        let mut headers = sample().to_headers();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value.to_owned()));
        assert_eq!(read(&headers).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_required_header_that_is_missing_or_empty_handed_is_named() {
    for name in [header::SPEC_VERSION, header::ID, header::SOURCE, header::TYPE, header::TIME] {
        let headers = sample().to_headers();
        let without = headers.iter().filter(|(known, _)| *known != name);
        let missing = Envelope::from_headers(without.map(|(name, value)| (*name, Some(value.as_bytes()))));
        assert_eq!(missing, Err(EnvelopeError::Missing(name)));
        let null = headers.iter().map(|(known, value)| (*known, (*known != name).then_some(value.as_bytes())));
        assert_eq!(Envelope::from_headers(null), Err(EnvelopeError::Missing(name)));
    }
}

#[test]
fn a_repeated_header_is_refused_since_nobody_can_tell_which_is_meant() {
    let mut headers = sample().to_headers();
    headers.push((header::ID, EventId::new().to_string()));
    assert_eq!(read(&headers), Err(EnvelopeError::Repeated(header::ID)));
}

#[test]
fn every_json_media_type_is_accepted_and_none_is_needed() {
    for accepted in
        ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/cloudevents+json"]
    {
        let mut headers = sample().to_headers();
        headers.retain(|(name, _)| *name != header::CONTENT_TYPE);
        assert!(read(&headers).is_ok());
        headers.push((header::CONTENT_TYPE, accepted.to_owned()));
        assert!(read(&headers).is_ok(), "{accepted}");
    }
}

fn sample() -> Envelope {
    Envelope {
        id: EventId::new(),
        source: "order-service".to_owned(),
        event_type: "order.created".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        subject: None,
        correlation_id: None,
        causation_id: None,
        attempt: None,
        traceparent: None,
        tracestate: None,
    }
}
