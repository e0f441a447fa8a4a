//! The statements that fill the outbox: a few for all due rows of a transaction, a few for all delayed ones.

use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use super::{Bucket, OutboxRow, row::headers_to_json};
use crate::{Tx, database::rows};

/// The most rows in a statement.
const MOST_ROWS: usize = 256;

pub(super) async fn due(tx: &mut Tx, rows: Vec<OutboxRow>, now: Timestamp) -> Result<(), sqlx::Error> {
    insert(tx, "outbox", "created_at", rows, |_| now).await
}

pub(super) async fn delayed(tx: &mut Tx, rows: Vec<OutboxRow>) -> Result<(), sqlx::Error> {
    insert(tx, "outbox_delayed", "not_before", rows, |row| row.not_before.unwrap_or(Timestamp::UNIX_EPOCH)).await
}

async fn insert(
    tx: &mut Tx,
    table: &'static str,
    time_column: &'static str,
    rows: Vec<OutboxRow>,
    time: impl Fn(&OutboxRow) -> Timestamp,
) -> Result<(), sqlx::Error> {
    let sizes = rows::sizes(rows.len(), MOST_ROWS);
    let mut rows = rows.into_iter();
    for size in sizes {
        let sql = format!(
            "INSERT INTO {table} (event_id, topic, record_key, headers, value, bucket, {time_column}) VALUES {}",
            rows::values(0, size, 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in rows.by_ref().take(size) {
            let time = time(&row).as_microsecond();
            let bucket = Bucket::of(row.key.as_bytes()).number();
            query = query
                .bind(row.envelope.id.to_string())
                .bind(row.topic.name)
                .bind(row.key)
                .bind(headers_to_json(&row.envelope))
                .bind(row.value)
                .bind(bucket)
                .bind(time);
        }
        query.execute(tx.conn()).await?;
    }
    Ok(())
}
