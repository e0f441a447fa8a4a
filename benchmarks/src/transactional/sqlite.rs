//! The rows of a sale in SQLite: one writer, so all that can be done is to let records share transactions and statements.

use std::str::FromStr as _;

use jiff::Timestamp;
use shared_events::Event as _;
use sqlx::{
    Connection as _, QueryBuilder, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::by_hand::Sale;
use crate::topics::Sold;

const GROUP: &str = "by-hand";

/// With the settings that the runtime uses.
pub async fn connect(url: &str) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::from_str(url)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    SqliteConnection::connect_with(&options).await
}

/// Writes `sales`, so many in a transaction.
pub async fn write(connection: &mut SqliteConnection, sales: &[Sale], batch: usize) -> Result<(), sqlx::Error> {
    for sales in sales.chunks(batch) {
        transaction(connection, sales).await?;
    }
    Ok(())
}

async fn transaction(connection: &mut SqliteConnection, sales: &[Sale]) -> Result<(), sqlx::Error> {
    let now = Timestamp::now().as_microsecond();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut inbox = QueryBuilder::new("INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) ");
    inbox.push_values(sales, |mut row, sale| {
        row.push_bind(GROUP).push_bind(&sale.event_id).push_bind(now).push("NULL");
    });
    let new = inbox.push(" ON CONFLICT DO NOTHING").build().execute(&mut *tx).await?;
    if new.rows_affected() != sales.len() as u64 {
        // Where some were handled before, the others would be picked out here.
        return Err(sqlx::Error::Protocol("an event came twice, which none does in this workload".to_owned()));
    }
    let mut sale_rows = QueryBuilder::new("INSERT INTO sale (order_id, customer_email, total_minor) ");
    sale_rows.push_values(sales, |mut row, sale| {
        row.push_bind(&sale.order_id).push_bind(&sale.customer_email).push_bind(sale.total_minor);
    });
    sale_rows.build().execute(&mut *tx).await?;
    let mut outbox =
        QueryBuilder::new("INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) ");
    outbox.push_values(sales, |mut row, sale| {
        let published = &sale.published;
        row.push_bind(&published.event_id).push_bind(Sold::TOPIC.name).push_bind(&sale.order_id);
        row.push_bind(&published.headers).push_bind(&published.value).push("0").push_bind(now);
    });
    outbox.build().execute(&mut *tx).await?;
    tx.commit().await
}
