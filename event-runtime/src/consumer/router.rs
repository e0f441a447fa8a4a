//! Finds the handler of a record.

use std::sync::{Arc, atomic::AtomicBool};

use shared_events::Envelope;

use super::{
    dead_letter::header,
    kinds::Handler,
    metrics::{ConsumerMetrics, EventCounters, EventLabels, NO_EVENT},
};
use crate::{EventType, HandlerError, HashMap, Record, RetryPolicy, error::excerpt};

/// How much is said of why a record cannot be decoded: a parser may repeat the whole value. Characters.
const LONGEST_REASON: usize = 1000;
/// How much of a key is said. Characters.
const LONGEST_KEY: usize = 100;

/// A record with everything its attempts need.
pub(super) struct Job {
    pub(super) record: Record,
    pub(super) content: Content,
    /// Which replay of a dead letter this is; 0 for a record that is none.
    pub(super) replays: u32,
    pub(super) counters: Arc<EventCounters>,
    /// Set when the dead letter is acknowledged, so that a failure after that does not write it twice.
    pub(super) dead_lettered: AtomicBool,
}

/// What a record is.
pub(super) enum Content {
    /// An event that one of our handlers takes.
    Event { envelope: Arc<Envelope>, handler: Arc<dyn Handler> },
    /// Something that is no event, or has no value; says why.
    Undecodable(String),
    /// A record of a topic that is read raw.
    Raw(Arc<dyn Handler>),
}

/// Where a record goes.
pub(super) enum Route {
    /// To a handler. The number tells handlers apart, for their outages.
    Job { job: Arc<Job>, handler: usize, retry: RetryPolicy, shares: bool },
    /// Nowhere.
    Skip { record: Record, why: &'static str },
}

/// The handlers of a consumer group.
pub(super) struct Router {
    pub(super) group: &'static str,
    by_type: HashMap<&'static str, Taker>,
    by_topic: HashMap<String, Taker>,
    /// Of what is no event.
    undecodable: Counted,
}

/// A handler, its number, and what its records count.
struct Taker {
    number: usize,
    handler: Arc<dyn Handler>,
    counted: Counted,
}

/// The counters of one event type, by topic.
#[derive(Default)]
struct Counted(HashMap<String, Arc<EventCounters>>);

/// The handler number of records that reach no handler.
const NOBODY: usize = 0;

impl Router {
    pub(super) fn new(group: &'static str) -> Router {
        Router { group, by_type: HashMap::default(), by_topic: HashMap::default(), undecodable: Counted::default() }
    }

    /// Adds the handler of these event types. The first that has one already.
    pub(super) fn add(&mut self, types: &[EventType], handler: &Arc<dyn Handler>) -> Option<&'static str> {
        let number = self.next_number();
        let taken = |kind: &&EventType| self.by_type.insert(kind.name, Taker::new(number, handler)).is_some();
        types.iter().find(taken).map(|kind| kind.name)
    }

    /// Adds the handler of raw topics; false when one of them has one already.
    pub(super) fn add_raw(&mut self, topics: &[String], handler: &Arc<dyn Handler>) -> bool {
        let number = self.next_number();
        topics.iter().all(|topic| self.by_topic.insert(topic.clone(), Taker::new(number, handler)).is_none())
    }

    /// Where `record` goes, with what is to be counted of it in `metrics`.
    pub(super) fn route(&mut self, record: Record, metrics: &ConsumerMetrics) -> Route {
        let (group, topic) = (self.group, &record.origin.topic);
        if let Some(taker) = self.by_topic.get_mut(&**topic) {
            let counters = taker.counted.of(metrics, group, topic, NO_EVENT);
            let (content, retry) = (Content::Raw(taker.handler.clone()), taker.handler.retry(NO_EVENT));
            return job(record, content, counters, (taker.number, retry, false));
        }
        if record.header(header::TARGET_GROUP).is_some_and(|target| target != group.as_bytes()) {
            return Route::Skip { record, why: "it was replayed for another group" };
        }
        let envelope = match record.envelope() {
            Ok(envelope) => Arc::new(envelope),
            Err(error) => return self.undecodable(record, error.to_string(), metrics),
        };
        let Some(taker) = self.by_type.get_mut(envelope.event_type.as_str()) else {
            return Route::Skip { record, why: "no handler takes its type" };
        };
        if record.value.is_none() {
            return self.undecodable(record, "it has no value".to_owned(), metrics);
        }
        let counters = taker.counted.of(metrics, group, topic, &envelope.event_type);
        let (number, handler) = (taker.number, taker.handler.clone());
        let (retry, shares) = (handler.retry(&envelope.event_type), handler.shares().is_some());
        job(record, Content::Event { envelope, handler }, counters, (number, retry, shares))
    }

    fn undecodable(&mut self, record: Record, why: String, metrics: &ConsumerMetrics) -> Route {
        let counters = self.undecodable.of(metrics, self.group, &record.origin.topic, NO_EVENT);
        job(record, Content::Undecodable(why), counters, (NOBODY, RetryPolicy::default(), false))
    }

    fn next_number(&self) -> usize {
        NOBODY + 1 + self.by_type.len() + self.by_topic.len()
    }
}

impl Job {
    /// The event's type, for logs and labels; `-` for what is no event.
    pub(super) fn event_type(&self) -> &str {
        self.envelope().map_or(NO_EVENT, |envelope| &envelope.event_type)
    }

    /// Everything about the event but its data, if it is one.
    pub(super) fn envelope(&self) -> Option<&Arc<Envelope>> {
        match &self.content {
            Content::Event { envelope, .. } => Some(envelope),
            Content::Undecodable(_) | Content::Raw(_) => None,
        }
    }

    /// The event's id, for logs; empty for what is no event.
    pub(super) fn event_id(&self) -> String {
        self.envelope().map(|envelope| envelope.id.to_string()).unwrap_or_default()
    }

    /// The key as text, for logs.
    pub(super) fn key(&self) -> String {
        self.record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned()
    }
}

impl Taker {
    fn new(number: usize, handler: &Arc<dyn Handler>) -> Taker {
        Taker { number, handler: handler.clone(), counted: Counted::default() }
    }
}

impl Counted {
    fn of(
        &mut self,
        metrics: &ConsumerMetrics,
        group: &'static str,
        topic: &str,
        event_type: &str,
    ) -> Arc<EventCounters> {
        if let Some(known) = self.0.get(topic) {
            return known.clone();
        }
        let labels = EventLabels { group, topic: topic.to_owned(), r#type: event_type.to_owned() };
        let counters = Arc::new(metrics.counters(&labels));
        self.0.insert(topic.to_owned(), counters.clone());
        counters
    }
}

fn job(
    record: Record,
    content: Content,
    counters: Arc<EventCounters>,
    (handler, retry, shares): (usize, RetryPolicy, bool),
) -> Route {
    let replays = replays(&record);
    let job = Arc::new(Job { record, content, replays, counters, dead_lettered: AtomicBool::new(false) });
    // A replay takes its inbox row over from a dead letter, which the statement of a batch does not.
    let shares = shares && replays == 0;
    Route::Job { job, handler, retry, shares }
}

/// How often this record was put back into its topic from the dead letters.
fn replays(record: &Record) -> u32 {
    let count = record.header(header::REPLAY_COUNT).and_then(|value| std::str::from_utf8(value).ok());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The failure of a record that no handler can be asked about.
#[derive(Debug, thiserror::Error)]
#[error("the record cannot be decoded: {0}")]
pub(super) struct UndecodableError(String);

impl UndecodableError {
    pub(super) fn new(why: &str) -> UndecodableError {
        UndecodableError(excerpt(why, LONGEST_REASON))
    }
}

impl From<UndecodableError> for HandlerError {
    fn from(error: UndecodableError) -> Self {
        Self::reject(error)
    }
}

/// The failure of a record whose key is not its event's. It stands in the order of another key, so that its event could be
/// handled beside others of its own, or before them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WrongKeyError(String);

impl WrongKeyError {
    /// Compares the key of `record` with that of the event it holds.
    pub(super) fn check(record: &Record, event_type: &str, expected: &str) -> Result<(), WrongKeyError> {
        let known = match record.key.as_deref() {
            Some(key) if key == expected.as_bytes() => return Ok(()),
            Some(key) => format!("the record's key is \"{}\"", excerpt(&String::from_utf8_lossy(key), LONGEST_KEY)),
            None => "the record has no key".to_owned(),
        };
        let expected = excerpt(expected, LONGEST_KEY);
        Err(WrongKeyError(format!("{known}, but the key of its {event_type} is \"{expected}\"")))
    }
}

impl From<WrongKeyError> for HandlerError {
    fn from(error: WrongKeyError) -> Self {
        Self::reject(error)
    }
}
