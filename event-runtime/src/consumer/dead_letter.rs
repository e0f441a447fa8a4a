//! Dead letters: what a group could not handle, in `<topic>.<group>.dlt`, unchanged but for headers that say why.
//!
//! Names and encodings of the `kafka_dlt-` headers are those of Spring Kafka's `DeadLetterPublishingRecoverer`
//! (`KafkaHeaders`, 3.x), so that existing tools can read them: text is UTF-8, numbers are big-endian.

use std::sync::Arc;

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
    /// The group that could not handle it; empty when nobody says.
    pub group: String,
    /// The class of the failure: see [`header::EXCEPTION_FQCN`].
    pub error_class: String,
    /// The last error with its causes.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// How often the record was put back into its topic before.
    pub replay_count: u32,
    /// Whether the letter is without the value that the record has: see [`header::VALUE_OMITTED`].
    pub value_omitted: bool,
}

impl DeadLetter {
    /// Reads the headers of a dead letter; `None` when they do not say where the record stood.
    pub fn read(record: &Record) -> Option<DeadLetter> {
        let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let partition = i32::from_be_bytes(record.header(header::ORIGINAL_PARTITION)?.try_into().ok()?);
        let offset = i64::from_be_bytes(record.header(header::ORIGINAL_OFFSET)?.try_into().ok()?);
        if partition < 0 || offset < 0 {
            return None;
        }
        let topic: Arc<str> = text(header::ORIGINAL_TOPIC)?.into();
        // Older tools do not write the group; `<topic>.<group>.dlt` says it as well.
        let named = || {
            let group = record.origin.topic.strip_prefix(&*topic)?.strip_prefix('.')?.rsplit_once('.')?.0;
            Some(group.to_owned())
        };
        let group = text(header::ORIGINAL_CONSUMER_GROUP).or_else(named).unwrap_or_default();
        Some(DeadLetter {
            original: Origin { topic, partition, offset },
            group,
            error_class: text(header::EXCEPTION_FQCN).unwrap_or_default(),
            error: text(header::EXCEPTION_MESSAGE).unwrap_or_default(),
            attempts: text(header::ATTEMPTS).and_then(|count| count.parse().ok()).unwrap_or(0),
            failed_at: text(header::FAILED_AT).and_then(|time| time.parse().ok()),
            replay_count: text(header::REPLAY_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0),
            value_omitted: record.header(header::VALUE_OMITTED).is_some(),
        })
    }

    /// The record that puts `letter`, which says this about itself, back to where it was: same key, value, event id and
    /// headers, without what made it a dead letter, and for the group that failed alone. Sent twice, it is the same replay
    /// twice, of which the group's inbox lets one through.
    pub fn replay(&self, letter: &Record) -> OutgoingRecord {
        let mut headers: Vec<_> = letter.headers.iter().filter(|(name, _)| !is_of_a_letter(name)).cloned().collect();
        let mut add = |name: &'static str, value: String| headers.push((name.into(), Some(value.into_bytes())));
        add(header::TARGET_GROUP, self.group.clone());
        add(header::REPLAY_COUNT, self.replay_count.saturating_add(1).to_string());
        OutgoingRecord {
            topic: self.original.topic.to_string(),
            partition: Some(self.original.partition),
            key: letter.key.clone(),
            value: letter.value.clone(),
            headers,
        }
    }
}

/// Whether a header is about a dead letter rather than its record. Spring adds more of its own prefix than we do.
fn is_of_a_letter(name: &str) -> bool {
    OURS.contains(&name) || name.starts_with("kafka_dlt-") || name == header::TARGET_GROUP
}

/// A header as text. Three of a dead letter's are numbers in binary.
pub fn header_text(name: &str, value: &[u8]) -> String {
    let number = match name {
        header::ORIGINAL_PARTITION => value.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes))),
        header::ORIGINAL_OFFSET | header::ORIGINAL_TIMESTAMP => value.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    };
    number.map_or_else(|| String::from_utf8_lossy(value).into_owned(), |number| number.to_string())
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
    let mut headers: Vec<_> = record.headers.iter().filter(|(name, _)| !OURS.contains(&&**name)).cloned().collect();
    let mut add = |name: &'static str, value: Vec<u8>| headers.push((name.into(), Some(value)));
    add(header::ORIGINAL_TOPIC, record.origin.topic.as_bytes().to_vec());
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
    letter.headers.push((header::VALUE_OMITTED.into(), Some("too-large".into())));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &[u8])]) -> Record {
        let own = |(name, value): &(&str, &[u8])| ((*name).to_owned().into(), Some(value.to_vec()));
        Record {
            origin: Origin { topic: "orders".into(), partition: 3, offset: 42 },
            timestamp: Some(Timestamp::UNIX_EPOCH),
            key: Some(b"k".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: headers.iter().map(own).collect(),
        }
    }

    fn letter_of(record: &Record, replays: u32) -> Record {
        let letter = dead_letter("g", record, &HandlerError::reject("never"), 1, replays, Timestamp::UNIX_EPOCH);
        let origin = Origin { topic: letter.topic.into(), partition: 0, offset: 7 };
        Record { origin, timestamp: None, key: letter.key, value: letter.value, headers: letter.headers }
    }

    /// KafkaHeaders and DeadLetterPublishingRecoverer of Spring Kafka: partition by `ByteBuffer.putInt`, offset and
    /// timestamp by `putLong`, text as UTF-8.
    #[test]
    fn the_headers_have_the_names_and_encodings_of_springs() {
        let letter = letter_of(&record(&[]), 0);
        let table: [(&str, &[u8]); 8] = [
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &[0, 0, 0, 3]),
            ("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 0, 42]),
            ("kafka_dlt-original-timestamp", &[0; 8]),
            ("kafka_dlt-original-timestamp-type", b"CreateTime"),
            ("kafka_dlt-original-consumer-group", b"g"),
            ("kafka_dlt-exception-fqcn", b"rejected"),
            ("kafka_dlt-exception-message", b"never"),
        ];
        for (name, value) in table {
            assert_eq!(letter.header(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_replay_is_the_record_again_for_the_group_that_failed() {
        let original = record(&[("ce_id", b"e1"), ("traceparent", b"00-1-2-01"), ("mine", b"x")]);
        let mut letter = letter_of(&original, 0);
        // As Spring adds it.
        letter.headers.push(("kafka_dlt-exception-stacktrace".into(), Some(b"at \xe2\x80\xa6".to_vec())));
        let replay = DeadLetter::read(&letter).unwrap().replay(&letter);
        assert_eq!((replay.topic.as_str(), replay.partition), ("orders", Some(3)));
        assert_eq!((&replay.key, &replay.value), (&original.key, &original.value));
        let mut expected = original.headers.clone();
        expected.push((header::TARGET_GROUP.into(), Some(b"g".to_vec())));
        expected.push((header::REPLAY_COUNT.into(), Some(b"1".to_vec())));
        assert_eq!(replay.headers, expected);

        // Without the header, the topic's name says for whom it is.
        letter.headers.retain(|(name, _)| name != header::ORIGINAL_CONSUMER_GROUP);
        assert_eq!(DeadLetter::read(&letter).unwrap().group, "g");

        // It fails once more, and the next replay has each header once.
        let failed = Record { headers: replay.headers, ..original.clone() };
        let letter = letter_of(&failed, 1);
        let again = DeadLetter::read(&letter).unwrap().replay(&letter);
        expected.pop();
        expected.push((header::REPLAY_COUNT.into(), Some(b"2".to_vec())));
        assert_eq!(again.headers, expected);
    }

    #[test]
    fn a_header_is_shown_as_text_and_the_numbers_of_a_letter_as_numbers() {
        let letter = letter_of(&record(&[]), 0);
        let shown = |name| header_text(name, letter.header(name).unwrap());
        assert_eq!(shown(header::ORIGINAL_TOPIC), "orders");
        assert_eq!(shown(header::ORIGINAL_PARTITION), "3");
        assert_eq!(shown(header::ORIGINAL_OFFSET), "42");
        assert_eq!(shown(header::ORIGINAL_TIMESTAMP), "0");
        assert_eq!(header_text(header::ORIGINAL_OFFSET, b"42"), "42", "not eight bytes: as another tool may write it");
    }

    #[test]
    fn a_letter_may_be_of_the_first_record_of_the_first_partition() {
        let origin = Origin { topic: "orders".into(), partition: 0, offset: 0 };
        let letter = letter_of(&Record { origin: origin.clone(), ..record(&[]) }, 0);
        assert_eq!(DeadLetter::read(&letter).unwrap().original, origin);
    }
}
