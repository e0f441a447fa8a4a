//! A row between the database and the topic: its headers are kept as JSON, in their order.

use shared_events::{Envelope, EventId};
use sqlx::{Row as _, any::AnyRow};

use super::bucket::{Bucket, Fences};
use crate::{database::columns::undecodable, producer::OutgoingRecord};

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

/// The bucket of a row with [`COLUMNS`], or with only the first two of them.
pub(super) fn bucket(row: &AnyRow) -> Result<Bucket, sqlx::Error> {
    Bucket::numbered(row.try_get(1)?).ok_or_else(|| undecodable("bucket", "there is no such bucket"))
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
            event_id: event_id.parse().map_err(|source| undecodable("event_id", source))?,
            topic: row.try_get(3)?,
            key: row.try_get(4)?,
            headers: serde_json::from_str(&headers).map_err(|source| undecodable("headers", source))?,
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
                .map(|(name, value)| (name.clone(), Some(value.clone().into_bytes())))
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
    use jiff::Timestamp;
    use proptest::{option::of, prelude::*};
    use shared_events::CorrelationId;
    use uuid::Uuid;

    use super::*;

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

    proptest! {
        #[test]
        fn an_envelope_is_the_same_after_the_table_and_the_record(envelope in envelopes(), value: Vec<u8>, key: String) {
            let row = StoredRow {
                event_id: envelope.id,
                headers: serde_json::from_str(&headers_to_json(&envelope)).unwrap(),
                value: value.clone(),
                ..StoredRow::sample(1, &key)
            };
            let record = row.to_record();
            let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            prop_assert_eq!(Envelope::from_headers(headers).unwrap(), envelope);
            prop_assert_eq!((record.key, record.value), (Some(key.into_bytes()), Some(value)));
        }
    }
}
