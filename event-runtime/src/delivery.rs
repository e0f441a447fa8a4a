//! A record on its way to a handler.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;
use shared_events::{Envelope, EnvelopeError};
use tokio::time::Instant;
use tracing::Span;

/// Where a record stands in Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl std::fmt::Display for Origin {
    /// `orders[3]@42`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// The name of a header. Those of an [`Envelope`] are constants, as they stand in every record.
pub type HeaderName = Cow<'static, str>;

/// A record as it was read, owned, nothing decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub origin: Origin,
    /// The record's timestamp, where the broker gave one.
    pub timestamp: Option<Timestamp>,
    /// The key; records without one have no order among each other.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order; a header may have no value.
    pub headers: Vec<(HeaderName, Option<Vec<u8>>)>,
}

impl Record {
    /// The bytes it holds in memory: key, value and headers.
    pub fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// The value of the last header called `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    /// The envelope in its headers.
    ///
    /// # Errors
    /// When they are not those of an event.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        Envelope::from_headers(self.headers.iter().map(|(name, value)| (&**name, value.as_deref())))
    }
}

/// One attempt at one event.
#[derive(Clone, Debug)]
pub struct Delivery<E> {
    /// The decoded event.
    pub event: E,
    /// Its id, source, time, correlation and trace.
    pub envelope: Arc<Envelope>,
    /// Where it stands in Kafka.
    pub origin: Origin,
    /// Which attempt this is, counted from 1. Outages use up none.
    pub attempt: u32,
    /// Whether the record is dead-lettered should this attempt fail.
    pub last_attempt: bool,
    /// When this attempt began, by the runtime's clock.
    pub now: Timestamp,
    /// Until when this attempt may run: the transaction it is in is rolled back then, and an effect is no longer waited
    /// for. In a batch that is the deadline of the batch. What the handler calls should be given less, so that it is the
    /// callee's timeout that is seen, and the handler that says what follows from it.
    pub deadline: Instant,
    /// What log lines about this delivery belong into. It is entered where one delivery is handled, and not where several
    /// are handled at once.
    pub span: Span,
}

impl<E> Delivery<E> {
    /// How long this attempt may still run.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same delivery with its event as something else.
    pub fn map<F>(self, make: impl FnOnce(E) -> F) -> Delivery<F> {
        let Delivery { event, envelope, origin, attempt, last_attempt, now, deadline, span } = self;
        Delivery { event: make(event), envelope, origin, attempt, last_attempt, now, deadline, span }
    }
}
