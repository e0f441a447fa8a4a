//! Dead letters: what a group could not handle, in `<topic>.<group>.dlt`, unchanged but for headers that say why.
//!
//! Names and encodings of the `kafka_dlt-` headers are those of Spring Kafka's `DeadLetterPublishingRecoverer`
//! (`KafkaHeaders`, 3.x), so that existing tools can read them: text is UTF-8, numbers are big-endian.

use jiff::Timestamp;
use shared_events::topics::dead_letter_topic;

use crate::{HandlerError, Origin, Record, error::Chain, producer::OutgoingRecord};

/// Header names.
pub mod header {
    /// The topic the record was read from.
    pub const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
    /// Its partition: 4 bytes.
    pub const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
    /// Its offset: 8 bytes.
    pub const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";
    /// Its timestamp, milliseconds since 1970: 8 bytes.
    pub const ORIGINAL_TIMESTAMP: &str = "kafka_dlt-original-timestamp";
    /// What its timestamp means; always `CreateTime`.
    pub const ORIGINAL_TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
    /// The group that could not handle it.
    pub const ORIGINAL_CONSUMER_GROUP: &str = "kafka_dlt-original-consumer-group";
    /// The class of the failure: `retries-exhausted`, `rejected` or `unavailable`.
    pub const EXCEPTION_FQCN: &str = "kafka_dlt-exception-fqcn";
    /// The last error with its causes.
    pub const EXCEPTION_MESSAGE: &str = "kafka_dlt-exception-message";
    /// How many attempts were made, as decimal text.
    pub const ATTEMPTS: &str = "dlt-attempts";
    /// When the last attempt failed, RFC 3339.
    pub const FAILED_AT: &str = "dlt-failed-at";
    /// How often the record was put back into its topic, as decimal text.
    pub const REPLAY_COUNT: &str = "dlt-replay-count";
    /// Why the letter has no value although the record has one: `too-large`. The record itself stands at its origin.
    pub const VALUE_OMITTED: &str = "dlt-value-omitted";
    /// The only group a replayed record is for.
    pub const TARGET_GROUP: &str = "target-group";
}

/// The headers a dead letter brings with it; an older one of the same name is replaced.
const OURS: [&str; 12] = [
    header::ORIGINAL_TOPIC,
    header::ORIGINAL_PARTITION,
    header::ORIGINAL_OFFSET,
    header::ORIGINAL_TIMESTAMP,
    header::ORIGINAL_TIMESTAMP_TYPE,
    header::ORIGINAL_CONSUMER_GROUP,
    header::EXCEPTION_FQCN,
    header::EXCEPTION_MESSAGE,
    header::ATTEMPTS,
    header::FAILED_AT,
    header::REPLAY_COUNT,
    header::VALUE_OMITTED,
];

/// An error may repeat a whole record, and Kafka's limits are for all of a letter. Characters.
const LONGEST_MESSAGE: usize = 4096;

/// What a dead letter says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the record stood.
    pub original: Origin,
    /// The group that could not handle it.
    pub group: String,
    /// The last error with its causes.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// How often the record was put back into its topic before.
    pub replay_count: u32,
}

impl DeadLetter {
    /// Reads the headers of a dead letter; `None` when they do not say where the record stood.
    pub fn read(record: &Record) -> Option<DeadLetter> {
        let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let partition = record.header(header::ORIGINAL_PARTITION)?.try_into().ok()?;
        let offset = record.header(header::ORIGINAL_OFFSET)?.try_into().ok()?;
        Some(DeadLetter {
            original: Origin {
                topic: text(header::ORIGINAL_TOPIC)?,
                partition: i32::from_be_bytes(partition),
                offset: i64::from_be_bytes(offset),
            },
            group: text(header::ORIGINAL_CONSUMER_GROUP).unwrap_or_default(),
            error: text(header::EXCEPTION_MESSAGE).unwrap_or_default(),
            attempts: text(header::ATTEMPTS).and_then(|count| count.parse().ok()).unwrap_or(0),
            failed_at: text(header::FAILED_AT).and_then(|time| time.parse().ok()),
            replay_count: text(header::REPLAY_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0),
        })
    }
}

/// The dead letter of `record`: key, value and headers as they are, and the headers above.
pub(super) fn dead_letter(
    group: &str,
    record: &Record,
    error: &HandlerError,
    attempts: u32,
    replays: u32,
    now: Timestamp,
) -> OutgoingRecord {
    let mut headers: Vec<_> =
        record.headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str())).cloned().collect();
    let mut add = |name: &str, value: Vec<u8>| headers.push((name.to_owned(), Some(value)));
    add(header::ORIGINAL_TOPIC, record.origin.topic.clone().into());
    add(header::ORIGINAL_PARTITION, record.origin.partition.to_be_bytes().into());
    add(header::ORIGINAL_OFFSET, record.origin.offset.to_be_bytes().into());
    if let Some(timestamp) = record.timestamp {
        add(header::ORIGINAL_TIMESTAMP, timestamp.as_millisecond().to_be_bytes().into());
        add(header::ORIGINAL_TIMESTAMP_TYPE, "CreateTime".into());
    }
    add(header::ORIGINAL_CONSUMER_GROUP, group.into());
    add(header::EXCEPTION_FQCN, class(error).into());
    let message = Chain(error.source_error().as_ref()).to_string();
    add(header::EXCEPTION_MESSAGE, message.chars().take(LONGEST_MESSAGE).collect::<String>().into());
    add(header::ATTEMPTS, attempts.to_string().into());
    add(header::FAILED_AT, now.to_string().into());
    add(header::REPLAY_COUNT, replays.to_string().into());
    OutgoingRecord {
        topic: dead_letter_topic(&record.origin.topic, group),
        partition: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

/// `letter` without its value, for a record that Kafka does not take a second time with the headers above.
pub(super) fn without_value(mut letter: OutgoingRecord) -> OutgoingRecord {
    letter.value = None;
    letter.headers.push((header::VALUE_OMITTED.to_owned(), Some("too-large".into())));
    letter
}

/// Rust has no class names; the three classes of [`HandlerError`] are what an operator can act on.
fn class(error: &HandlerError) -> &'static str {
    match error {
        HandlerError::Retry(_) => "retries-exhausted",
        HandlerError::Reject(_) => "rejected",
        HandlerError::Unavailable(_) => "unavailable",
    }
}
