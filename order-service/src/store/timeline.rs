//! What happened to an order, event by event: our own events with the partition and offset the relay found for them,
//! and every event of another service that was handled here.

use event_runtime::{
    Delivery, Tx,
    database::{
        columns::{moment, undecodable},
        rows::{
            self,
            Column::{BigInt, Text},
        },
    },
    outbox::{OnPublished, OutboxRow, Published},
    telemetry::trace::trace_id,
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use shared_events::{EventId, OrderId};
use sqlx::{AnyPool, AssertSqlSafe, Row, any::AnyRow};

use super::{MOST_ROWS, parsed};

/// One line of an order's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub event_id: EventId,
    /// The consumer group that dead-lettered the event; `None` for the event itself.
    pub dead_letter_of: Option<String>,
    pub time: Timestamp,
    /// Who said it.
    pub service: String,
    pub event: String,
    pub topic: String,
    /// Partition and offset, once they are known.
    pub place: Option<(i32, i64)>,
    /// At which attempt the record that caused this event was handled.
    pub attempt: Option<u32>,
    pub trace_id: Option<String>,
    pub detail: Option<String>,
}

impl Entry {
    /// The event that waits in `row`. Where it stands is written back when it is published.
    pub fn of_outbox(row: &OutboxRow, detail: String) -> Entry {
        let envelope = &row.envelope;
        Entry {
            event_id: envelope.id,
            dead_letter_of: None,
            time: envelope.time,
            service: envelope.source.clone(),
            event: envelope.event_type.clone(),
            topic: row.topic.name.to_owned(),
            place: None,
            attempt: envelope.attempt,
            trace_id: envelope.traceparent.as_deref().and_then(trace_id),
            detail: Some(detail),
        }
    }

    /// The event that was delivered.
    pub fn of_delivery<E>(delivery: &Delivery<E>, detail: Option<String>) -> Entry {
        let Delivery { envelope, origin, .. } = delivery;
        Entry {
            event_id: envelope.id,
            dead_letter_of: None,
            time: envelope.time,
            service: envelope.source.clone(),
            event: envelope.event_type.clone(),
            topic: origin.topic.to_string(),
            place: Some((origin.partition, origin.offset)),
            attempt: envelope.attempt,
            trace_id: envelope.traceparent.as_deref().and_then(trace_id),
            detail,
        }
    }
}

const COLUMNS: &str = "event_id, dead_letter_of, happened_at, service, event, topic, log_partition, log_offset, \
                       attempt, trace_id, detail";
/// An event that is handled again, after a replay, keeps its one line.
const ONCE: &str = "ON CONFLICT (event_id, dead_letter_of) DO UPDATE SET happened_at = excluded.happened_at";

/// Adds each entry to the timeline of its order, which must exist.
///
/// # Errors
/// When the statement fails.
pub async fn record(tx: &mut Tx, entries: &[(OrderId, &Entry)]) -> Result<(), sqlx::Error> {
    for entries in rows::chunks(entries, MOST_ROWS) {
        let values = rows::values(0, entries.len(), 12);
        let sql = format!("INSERT INTO order_timeline ({COLUMNS}, order_id) VALUES {values} {ONCE}");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (order_id, entry) in entries {
            query = bind(query, entry).bind(order_id.to_string());
        }
        query.execute(tx.conn()).await?;
    }
    Ok(())
}

/// Adds `entry` to the timeline of the order, if there is such an order; answers whether there is.
///
/// # Errors
/// When the statement fails.
pub async fn note_if_known(tx: &mut Tx, order_id: OrderId, entry: &Entry) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "INSERT INTO order_timeline ({COLUMNS}, order_id) SELECT {}, id FROM orders WHERE id = $12 {ONCE}",
        rows::placeholders(0, 11)
    );
    let query = bind(sqlx::query(AssertSqlSafe(sql)), entry).bind(order_id.to_string());
    Ok(query.execute(tx.conn()).await?.rows_affected() > 0)
}

/// The timeline of an order, in the order in which things happened.
///
/// # Errors
/// When the query fails.
pub async fn of_order(pool: &AnyPool, order_id: OrderId) -> Result<Vec<Entry>, sqlx::Error> {
    // Event ids are UUIDv7: they put events of one microsecond in the order in which they were made.
    let sql = format!(
        "SELECT {COLUMNS} FROM order_timeline WHERE order_id = $1 ORDER BY happened_at, event_id, dead_letter_of"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(order_id.to_string()).fetch_all(pool).await?;
    rows.iter().map(entry).collect()
}

/// Writes back where our own events stand, in the transaction that removes them from the outbox.
pub struct WriteBack;

impl OnPublished for WriteBack {
    fn published<'a>(&'a self, tx: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            for rows in rows::chunks(rows, MOST_ROWS) {
                write_back(tx, rows).await?;
            }
            Ok(())
        })
    }
}

async fn write_back(tx: &mut Tx, published: &[Published]) -> Result<(), sqlx::Error> {
    // Events without a line, such as the deadline, match nothing.
    let sql = format!(
        "UPDATE order_timeline SET log_partition = place.column2, log_offset = place.column3 \
         FROM (VALUES {}) AS place WHERE event_id = place.column1 AND dead_letter_of = ''",
        rows::typed_values(published.len(), &[Text, BigInt, BigInt])
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for row in published {
        query = query.bind(row.event_id.to_string()).bind(i64::from(row.origin.partition)).bind(row.origin.offset);
    }
    query.execute(tx.conn()).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Query<'q>, entry: &Entry) -> Query<'q> {
    query
        .bind(entry.event_id.to_string())
        .bind(entry.dead_letter_of.clone().unwrap_or_default())
        .bind(entry.time.as_microsecond())
        .bind(entry.service.clone())
        .bind(entry.event.clone())
        .bind(entry.topic.clone())
        .bind(entry.place.map(|(partition, _)| i64::from(partition)))
        .bind(entry.place.map(|(_, offset)| offset))
        .bind(entry.attempt.map(i64::from))
        .bind(entry.trace_id.clone())
        .bind(entry.detail.clone())
}

fn entry(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    let dead_letter_of: String = row.try_get("dead_letter_of")?;
    let partition: Option<i64> = row.try_get("log_partition")?;
    let offset: Option<i64> = row.try_get("log_offset")?;
    let attempt: Option<i64> = row.try_get("attempt")?;
    let partition = partition.map(i32::try_from).transpose().map_err(|error| undecodable("log_partition", error))?;
    Ok(Entry {
        event_id: parsed(row, "event_id")?,
        dead_letter_of: (!dead_letter_of.is_empty()).then_some(dead_letter_of),
        time: moment(row, "happened_at")?,
        service: row.try_get("service")?,
        event: row.try_get("event")?,
        topic: row.try_get("topic")?,
        place: partition.zip(offset),
        attempt: attempt.map(u32::try_from).transpose().map_err(|error| undecodable("attempt", error))?,
        trace_id: row.try_get("trace_id")?,
        detail: row.try_get("detail")?,
    })
}
