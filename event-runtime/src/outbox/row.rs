//! A row between the database and the topic: its headers are kept as JSON, in their order.

use shared_events::{Envelope, EventId};
use sqlx::{Row as _, any::AnyRow};

use crate::producer::OutgoingRecord;

/// A row of the outbox as the relay reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRow {
    pub seq: i64,
    pub event_id: EventId,
    pub topic: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub value: Vec<u8>,
    /// Microseconds since 1970.
    pub created_at: i64,
}

/// The columns [`StoredRow::from_row`] expects, in this order.
pub(super) const COLUMNS: &str = "seq, event_id, topic, record_key, headers, value, created_at";

pub(super) fn headers_to_json(envelope: &Envelope) -> String {
    serde_json::to_string(&envelope.to_headers()).expect("pairs of strings can always be written as JSON")
}

impl StoredRow {
    pub fn from_row(row: &AnyRow) -> Result<StoredRow, sqlx::Error> {
        let event_id: String = row.try_get(1)?;
        let headers: String = row.try_get(4)?;
        Ok(StoredRow {
            seq: row.try_get(0)?,
            event_id: event_id.parse().map_err(|source| malformed("event_id", source))?,
            topic: row.try_get(2)?,
            key: row.try_get(3)?,
            headers: serde_json::from_str(&headers).map_err(|source| malformed("headers", source))?,
            value: row.try_get(5)?,
            created_at: row.try_get(6)?,
        })
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

fn malformed(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) }
}
