//! The rows of a sale in PostgreSQL: by statements for one record, and by `unnest` for many.

use jiff::Timestamp;
use shared_events::Event as _;
use sqlx::{Connection as _, PgConnection};

use super::by_hand::Sale;
use crate::topics::Sold;

const GROUP: &str = "by-hand";

pub async fn connect(url: &str, connections: usize) -> anyhow::Result<Vec<PgConnection>> {
    let mut connected = Vec::with_capacity(connections);
    for _ in 0..connections {
        connected.push(PgConnection::connect(url).await?);
    }
    Ok(connected)
}

/// Writes `sales`, so many in a transaction.
pub async fn write(connection: &mut PgConnection, sales: &[Sale], batch: usize) -> Result<(), sqlx::Error> {
    for sales in sales.chunks(batch) {
        match sales {
            [sale] => one(connection, sale).await?,
            sales => many(connection, sales).await?,
        }
    }
    Ok(())
}

async fn one(connection: &mut PgConnection, sale: &Sale) -> Result<(), sqlx::Error> {
    let now = Timestamp::now().as_microsecond();
    let mut tx = connection.begin().await?;
    let new = sqlx::query(
        "INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) VALUES ($1, $2, $3, NULL) \
         ON CONFLICT DO NOTHING",
    )
    .bind(GROUP)
    .bind(&sale.event_id)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    if new.rows_affected() == 1 {
        sqlx::query("INSERT INTO sale (order_id, customer_email, total_minor) VALUES ($1, $2, $3)")
            .bind(&sale.order_id)
            .bind(&sale.customer_email)
            .bind(sale.total_minor)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) \
             VALUES ($1, $2, $3, $4, $5, 0, $6)",
        )
        .bind(&sale.published.event_id)
        .bind(Sold::TOPIC.name)
        .bind(&sale.order_id)
        .bind(&sale.published.headers)
        .bind(&sale.published.value)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}

async fn many(connection: &mut PgConnection, sales: &[Sale]) -> Result<(), sqlx::Error> {
    let now = Timestamp::now().as_microsecond();
    let texts = |of: fn(&Sale) -> &str| sales.iter().map(of).collect::<Vec<&str>>();
    let totals: Vec<i64> = sales.iter().map(|sale| sale.total_minor).collect();
    let values: Vec<&[u8]> = sales.iter().map(|sale| sale.published.value.as_slice()).collect();
    let mut tx = connection.begin().await?;
    let new = sqlx::query(
        "INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) \
         SELECT $1, id, $3, NULL FROM unnest($2::text[]) AS id ON CONFLICT DO NOTHING",
    )
    .bind(GROUP)
    .bind(texts(|sale| &sale.event_id))
    .bind(now)
    .execute(&mut *tx)
    .await?;
    if new.rows_affected() != sales.len() as u64 {
        // Where some were handled before, the others would be picked out here.
        return Err(sqlx::Error::Protocol("an event came twice, which none does in this workload".to_owned()));
    }
    sqlx::query(
        "INSERT INTO sale (order_id, customer_email, total_minor) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])",
    )
    .bind(texts(|sale| &sale.order_id))
    .bind(texts(|sale| &sale.customer_email))
    .bind(totals)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) \
         SELECT event_id, $1, record_key, headers, value, 0, $2 \
         FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[]) AS row (event_id, record_key, headers, value)",
    )
    .bind(Sold::TOPIC.name)
    .bind(now)
    .bind(texts(|sale| &sale.published.event_id))
    .bind(texts(|sale| &sale.order_id))
    .bind(texts(|sale| &sale.published.headers))
    .bind(values)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}
