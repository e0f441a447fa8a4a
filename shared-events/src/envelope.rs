//! CloudEvents 1.0 in Kafka's binary mode: the attributes travel as record headers, the value is the event's JSON.
//!
//! Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2; W3C Trace Context for `traceparent` and `tracestate`.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{CorrelationId, Event, EventId};

/// Header names.
pub mod header {
    /// CloudEvents version, always `1.0`.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// Event id.
    pub const ID: &str = "ce_id";
    /// The service that said it.
    pub const SOURCE: &str = "ce_source";
    /// Event type.
    pub const TYPE: &str = "ce_type";
    /// When it happened, RFC 3339.
    pub const TIME: &str = "ce_time";
    /// What it is about: the record key.
    pub const SUBJECT: &str = "ce_subject";
    /// Extension: what one request set in motion.
    pub const CORRELATION_ID: &str = "ce_correlationid";
    /// Extension: the event that caused this one.
    pub const CAUSATION_ID: &str = "ce_causationid";
    /// Extension: at which attempt the record that caused this event was handled, counted from 1.
    pub const ATTEMPT: &str = "ce_attempt";
    /// Media type of the value.
    pub const CONTENT_TYPE: &str = "content-type";
    /// W3C trace context.
    pub const TRACE_PARENT: &str = "traceparent";
    /// W3C trace context, vendor part.
    pub const TRACE_STATE: &str = "tracestate";

    /// The constant for `name`, if it is one of those above.
    pub fn known(name: &str) -> Option<&'static str> {
        super::KNOWN.iter().find(|known| **known == name).copied()
    }
}

const SPEC_VERSION: &str = "1.0";
const JSON: &str = "application/json";

/// Everything about an event but its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Stays the same however often the event is delivered.
    pub id: EventId,
    /// The service that said it.
    pub source: String,
    /// Event type, such as `order.created`.
    pub event_type: String,
    /// When it happened.
    pub time: Timestamp,
    /// What it is about: the record key.
    pub subject: Option<String>,
    /// What one request set in motion.
    pub correlation_id: Option<CorrelationId>,
    /// The event that caused this one.
    pub causation_id: Option<EventId>,
    /// At which attempt the record that caused this event was handled, counted from 1.
    pub attempt: Option<u32>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace context, vendor part.
    pub tracestate: Option<String>,
}

/// Why headers are no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A required header is not there.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header stands there twice, so nobody can tell which is meant.
    #[error("header {0} is there more than once")]
    Repeated(&'static str),
    /// A header is there and cannot be read.
    #[error("header {name} is {value:?}, which is no {expected}")]
    Malformed {
        /// Which header.
        name: &'static str,
        /// What it says, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Envelope {
    /// An envelope for `event`, said by `source` at `time`, with no cause.
    pub fn new<E: Event>(event: &E, source: &str, time: Timestamp) -> Envelope {
        Envelope {
            id: EventId::new(),
            source: source.to_owned(),
            event_type: E::TYPE.to_owned(),
            time,
            subject: Some(event.key()),
            correlation_id: None,
            causation_id: None,
            attempt: None,
            traceparent: None,
            tracestate: None,
        }
    }

    /// As record headers, in a fixed order.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (header::SPEC_VERSION, SPEC_VERSION.to_owned()),
            (header::ID, self.id.to_string()),
            (header::SOURCE, self.source.clone()),
            (header::TYPE, self.event_type.clone()),
            (header::TIME, self.time.to_string()),
            (header::CONTENT_TYPE, JSON.to_owned()),
        ];
        let optional = [
            (header::SUBJECT, self.subject.clone()),
            (header::CORRELATION_ID, self.correlation_id.map(|id| id.to_string())),
            (header::CAUSATION_ID, self.causation_id.map(|id| id.to_string())),
            (header::ATTEMPT, self.attempt.map(|attempt| attempt.to_string())),
            (header::TRACE_PARENT, self.traceparent.clone()),
            (header::TRACE_STATE, self.tracestate.clone()),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        headers
    }

    /// Reads an envelope from record headers. Headers it does not know are left alone.
    ///
    /// # Errors
    /// When a required header is missing, or one of ours is repeated, is no UTF-8 or cannot be parsed.
    pub fn from_headers<'a, I>(headers: I) -> Result<Envelope, EnvelopeError>
    where
        I: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    {
        let mut found = Found::default();
        for (name, value) in headers {
            found.take(name, value)?;
        }
        found.into_envelope()
    }
}

/// The headers seen so far, by position in [`KNOWN`].
#[derive(Default)]
struct Found<'a>([Option<&'a str>; KNOWN.len()]);

const KNOWN: [&str; 12] = [
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
];

impl<'a> Found<'a> {
    fn take(&mut self, name: &str, value: Option<&'a [u8]>) -> Result<(), EnvelopeError> {
        let Some(position) = KNOWN.iter().position(|known| *known == name) else { return Ok(()) };
        let name = KNOWN[position];
        // A header without a value says nothing: as good as absent.
        let Some(value) = value else { return Ok(()) };
        let text = std::str::from_utf8(value).map_err(|_| malformed(name, &String::from_utf8_lossy(value), "UTF-8"))?;
        if self.0[position].replace(text).is_some() {
            return Err(EnvelopeError::Repeated(name));
        }
        Ok(())
    }

    fn get(&self, name: &'static str) -> Option<&'a str> {
        KNOWN.iter().position(|known| *known == name).and_then(|position| self.0[position])
    }

    fn required(&self, name: &'static str) -> Result<&'a str, EnvelopeError> {
        self.get(name).ok_or(EnvelopeError::Missing(name))
    }

    fn owned(&self, name: &'static str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn uuid(&self, name: &'static str) -> Result<Option<Uuid>, EnvelopeError> {
        self.get(name).map(|text| text.parse().map_err(|_| malformed(name, text, "UUID"))).transpose()
    }

    fn into_envelope(self) -> Result<Envelope, EnvelopeError> {
        let version = self.required(header::SPEC_VERSION)?;
        if version != SPEC_VERSION {
            return Err(malformed(header::SPEC_VERSION, version, "version this reader knows (1.0)"));
        }
        if let Some(content_type) = self.get(header::CONTENT_TYPE).filter(|text| !is_json(text)) {
            return Err(malformed(header::CONTENT_TYPE, content_type, "JSON media type"));
        }
        let time = self.required(header::TIME)?;
        let attempt = self.get(header::ATTEMPT);
        Ok(Envelope {
            id: EventId(self.uuid(header::ID)?.ok_or(EnvelopeError::Missing(header::ID))?),
            source: self.required(header::SOURCE)?.to_owned(),
            event_type: self.required(header::TYPE)?.to_owned(),
            time: time.parse().map_err(|_| malformed(header::TIME, time, "RFC 3339 time"))?,
            subject: self.owned(header::SUBJECT),
            correlation_id: self.uuid(header::CORRELATION_ID)?.map(CorrelationId),
            causation_id: self.uuid(header::CAUSATION_ID)?.map(EventId),
            attempt: attempt
                .map(|text| text.parse().map_err(|_| malformed(header::ATTEMPT, text, "number")))
                .transpose()?,
            traceparent: self.owned(header::TRACE_PARENT),
            tracestate: self.owned(header::TRACE_STATE),
        })
    }
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(JSON) || media_type.to_ascii_lowercase().ends_with("+json")
}

fn malformed(name: &'static str, value: &str, expected: &'static str) -> EnvelopeError {
    EnvelopeError::Malformed { name, value: value.chars().take(80).collect(), expected }
}
