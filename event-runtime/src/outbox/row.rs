//! A row between the database and the topic: its headers are kept as JSON, in their order.

use jiff::{SignedDuration, Timestamp};
use shared_events::{Envelope, EventId};
use sqlx::{Row as _, any::AnyRow};

use super::bucket::{Bucket, Fences};
use crate::{database::columns::undecodable, error::excerpt, producer::OutgoingRecord};

/// How much is said of why a column cannot be read: a parser may repeat all that stands in it. Characters.
const LONGEST_REASON: usize = 300;

/// A row of the outbox as the relay reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRow {
    pub seq: i64,
    pub bucket: Bucket,
    /// The number under which its bucket was held when it was read.
    pub fence: i64,
    pub event_id: EventId,
    pub topic: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub value: Vec<u8>,
    /// Microseconds since 1970.
    pub created_at: i64,
}

/// The columns [`StoredRow::from_row`] expects, in this order.
pub(super) const COLUMNS: &str = "seq, bucket, event_id, topic, record_key, headers, value, created_at";

pub(super) fn headers_to_json(envelope: &Envelope) -> String {
    serde_json::to_string(&envelope.to_headers()).expect("pairs of strings can always be written as JSON")
}

fn headers_from_json(json: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    serde_json::from_str(json).map_err(|error| unreadable("headers", &error))
}

fn unreadable(column: &str, error: &dyn std::error::Error) -> sqlx::Error {
    undecodable(column, excerpt(&error.to_string(), LONGEST_REASON))
}

/// The bucket of a row with [`COLUMNS`], or with only the first two of them.
pub(super) fn bucket(row: &AnyRow) -> Result<Bucket, sqlx::Error> {
    Bucket::numbered(row.try_get(1)?).ok_or_else(|| undecodable("bucket", "there is no such bucket"))
}

/// For how long a row has been due; no less than nothing, though its writer's clock may be ahead.
pub(super) fn age(created_at: i64, now: Timestamp) -> SignedDuration {
    SignedDuration::from_micros((now.as_microsecond() - created_at).max(0))
}

impl StoredRow {
    pub fn from_row(row: &AnyRow, fences: &Fences) -> Result<StoredRow, sqlx::Error> {
        let bucket = bucket(row)?;
        let fence =
            fences.get(&bucket).copied().ok_or_else(|| undecodable("bucket", "it is of a bucket that was not read"))?;
        let event_id: String = row.try_get(2)?;
        let headers: String = row.try_get(5)?;
        Ok(StoredRow {
            seq: row.try_get(0)?,
            bucket,
            fence,
            event_id: event_id.parse().map_err(|error| unreadable("event_id", &error))?,
            topic: row.try_get(3)?,
            key: row.try_get(4)?,
            headers: headers_from_json(&headers)?,
            value: row.try_get(6)?,
            created_at: row.try_get(7)?,
        })
    }

    /// Roughly the bytes it takes in memory.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.topic.len() + self.key.len() + headers + self.value.len()
    }

    pub fn to_record(&self) -> OutgoingRecord {
        OutgoingRecord {
            topic: self.topic.clone(),
            partition: None,
            key: Some(self.key.clone().into_bytes()),
            value: Some(self.value.clone()),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.clone().into(), Some(value.clone().into_bytes())))
                .collect(),
        }
    }
}

#[cfg(test)]
impl StoredRow {
    /// A row of this key, for the tests of what moves rows.
    pub fn sample(seq: i64, key: &str) -> StoredRow {
        StoredRow {
            seq,
            bucket: Bucket::of(key.as_bytes()),
            fence: 1,
            event_id: EventId::new(),
            topic: "t".to_owned(),
            key: key.to_owned(),
            headers: Vec::new(),
            value: vec![0; 10],
            created_at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option::of, prelude::*};
    use shared_events::CorrelationId;
    use test_support::fuzz::{assert_presentable, fuzz};
    use uuid::Uuid;

    use super::*;
    use crate::error::Chain;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let id = any::<u128>().prop_map(Uuid::from_u128);
        // Microseconds of the years 1970 to 2286.
        let time = (0_i64..10_000_000_000_000_000).prop_map(|micros| Timestamp::from_microsecond(micros).unwrap());
        let texts = (any::<String>(), any::<String>(), of(any::<String>()), of(any::<String>()), of(any::<String>()));
        (id.clone(), texts, time, of(id.clone()), of(id), of(any::<u32>())).prop_map(
            |(id, (source, event_type, subject, traceparent, tracestate), time, correlation, causation, attempt)| {
                Envelope {
                    id: EventId(id),
                    source,
                    event_type,
                    time,
                    subject,
                    correlation_id: correlation.map(CorrelationId),
                    causation_id: causation.map(EventId),
                    attempt,
                    traceparent,
                    tracestate,
                }
            },
        )
    }

    #[test]
    fn a_row_takes_what_its_texts_and_its_value_take() {
        let row = StoredRow::sample(1, "key");
        assert_eq!(row.size(), 1 + 3 + 10);
        let headers = [("one", "three"), ("x", "yz")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(StoredRow { headers: headers.to_vec(), ..row }.size(), 14 + 8 + 3);
    }

    #[test]
    fn a_row_is_as_old_as_it_has_been_due() {
        let now = Timestamp::from_microsecond(5_000_000).unwrap();
        let ages = [1_500_000, 5_000_000, 5_000_001].map(|created_at| age(created_at, now));
        assert_eq!(ages, [3500, 0, 0].map(SignedDuration::from_millis));
    }

    #[test]
    fn fuzzed_headers_of_a_row_are_refused_or_the_same_in_the_record() {
        let envelope = Envelope {
            id: EventId(Uuid::from_u128(7)),
            source: "order-service".to_owned(),
            event_type: "order.created".to_owned(),
            time: Timestamp::UNIX_EPOCH,
            subject: Some("a \"key\"\n".to_owned()),
            correlation_id: Some(CorrelationId(Uuid::from_u128(8))),
            causation_id: None,
            attempt: Some(3),
            traceparent: None,
            tracestate: Some(String::new()),
        };
        let written = headers_to_json(&envelope);
        // Its error repeated all of it.
        let long = format!("[\"{}\"]", "x".repeat(5_000));
        let corpus =
            [&written, "[]", r#"[["a","\u001b[31m\ud83e\udd80"]]"#, r#"[["a",null]]"#, r#"{"a":"b"}"#, "null", &long];
        let words = ["[[", "]]", "\",\"", "\\u0000", "\\ud800", "ce_id", "ce_time", "content-type", "[["];
        fuzz(&corpus.map(str::to_owned), &words, |text| {
            if let Err(error) = text.parse::<EventId>() {
                assert_presentable(Chain(&unreadable("event_id", &error)));
            }
            match headers_from_json(text) {
                Ok(headers) => {
                    let again = serde_json::to_string(&headers).unwrap();
                    assert_eq!(headers_from_json(&again).unwrap(), headers);
                    let record = StoredRow { headers: headers.clone(), ..StoredRow::sample(1, "k") }.to_record();
                    let bytes =
                        |(name, value): &(String, String)| (name.clone().into(), Some(value.clone().into_bytes()));
                    assert_eq!(record.headers, headers.iter().map(bytes).collect::<Vec<_>>());
                    true
                }
                Err(error) => {
                    assert_presentable(Chain(&error));
                    false
                }
            }
        });
    }

    proptest! {
        #[test]
        fn an_envelope_is_the_same_after_the_table_and_the_record(envelope in envelopes(), value: Vec<u8>, key: String) {
            let row = StoredRow {
                event_id: envelope.id,
                headers: headers_from_json(&headers_to_json(&envelope)).unwrap(),
                value: value.clone(),
                ..StoredRow::sample(1, &key)
            };
            let record = row.to_record();
            let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
            prop_assert_eq!(Envelope::from_headers(headers).unwrap(), envelope);
            prop_assert_eq!((record.key, record.value), (Some(key.into_bytes()), Some(value)));
        }
    }
}
