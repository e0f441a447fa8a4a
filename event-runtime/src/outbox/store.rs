//! The statements that fill the outbox: one for all due rows of a transaction, one for all delayed ones.

use std::fmt::Write as _;

use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use super::{Bucket, OutboxRow, row::headers_to_json};
use crate::Tx;

/// Seven parameters a row; SQLite takes 32,766 in a statement, PostgreSQL 65,535.
const MOST_ROWS: usize = 1000;

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
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<OutboxRow> = rows.by_ref().take(MOST_ROWS).collect();
        let mut sql =
            format!("INSERT INTO {table} (event_id, topic, record_key, headers, value, bucket, {time_column}) VALUES ");
        for row in 0..chunk.len() {
            let first = row * 7;
            let comma = if row == 0 { "" } else { ", " };
            write!(
                sql,
                "{comma}(${}, ${}, ${}, ${}, ${}, ${}, ${})",
                first + 1,
                first + 2,
                first + 3,
                first + 4,
                first + 5,
                first + 6,
                first + 7
            )
            .expect("writing to a string cannot fail");
        }
        // Only the statements for a few rows come again often enough to be worth a prepared statement.
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(chunk.len() <= 4);
        for row in chunk {
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
