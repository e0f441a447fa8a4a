//! The payments' rows. SQL that runs on PostgreSQL and SQLite.

use event_runtime::{Migration, Tx};
use jiff::Timestamp;
use shared_events::{Money, OrderId};
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    domain::{Payment, State},
    error::PaymentError,
};

/// The schema.
pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "payments", sql: include_str!("../migrations/0001_payments.sql") }];

/// The payment of `order`, locked until the transaction ends.
///
/// # Errors
/// When the database fails or the row is damaged.
pub async fn lock(tx: &mut Tx, order: OrderId) -> Result<Option<Payment>, PaymentError> {
    // Writing first takes the lock on both databases; SQLite knows no FOR UPDATE.
    let row = sqlx::query(
        "UPDATE payments SET version = version + 1 WHERE order_id = $1 RETURNING order_id, payment_id, state, \
         amount_minor, currency, charge_id, reason, attempts, unsettled_since, created_at, updated_at",
    )
    .bind(order.to_string())
    .fetch_optional(tx.conn())
    .await?;
    row.as_ref().map(from_row).transpose()
}

/// Stores a payment, new or locked before.
///
/// # Errors
/// When the database fails.
pub async fn save(tx: &mut Tx, payment: &Payment) -> Result<(), PaymentError> {
    sqlx::query(
        "INSERT INTO payments (order_id, payment_id, state, amount_minor, currency, charge_id, reason, attempts, \
         unsettled_since, created_at, updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1) \
         ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, amount_minor = excluded.amount_minor, \
         currency = excluded.currency, charge_id = excluded.charge_id, reason = excluded.reason, \
         attempts = excluded.attempts, unsettled_since = excluded.unsettled_since, updated_at = excluded.updated_at",
    )
    .bind(payment.order_id.to_string())
    .bind(payment.payment_id.to_string())
    .bind(payment.state.name())
    .bind(payment.amount.map(|amount| amount.minor))
    .bind(payment.amount.map(|amount| amount.currency.code().to_owned()))
    .bind(payment.charge_id.clone())
    .bind(payment.reason.clone())
    .bind(i64::from(payment.attempts))
    .bind(payment.unsettled_since.map(Timestamp::as_microsecond))
    .bind(payment.created_at.as_microsecond())
    .bind(payment.updated_at.as_microsecond())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The payment of `order`.
///
/// # Errors
/// When the database fails or the row is damaged.
pub async fn find(pool: &AnyPool, order: OrderId) -> Result<Option<Payment>, PaymentError> {
    let row = sqlx::query(
        "SELECT order_id, payment_id, state, amount_minor, currency, charge_id, reason, attempts, unsettled_since, \
         created_at, updated_at FROM payments WHERE order_id = $1",
    )
    .bind(order.to_string())
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(from_row).transpose()
}

/// Up to `limit` payments with an order id above `after`, in the order of their ids, which is that of their orders'
/// creation.
///
/// # Errors
/// When the database fails or a row is damaged.
pub async fn list(
    pool: &AnyPool,
    state: Option<State>,
    after: Option<OrderId>,
    limit: u32,
) -> Result<Vec<Payment>, PaymentError> {
    let rows = sqlx::query(
        "SELECT order_id, payment_id, state, amount_minor, currency, charge_id, reason, attempts, unsettled_since, \
         created_at, updated_at FROM payments WHERE ($1 = '' OR state = $1) AND order_id > $2 ORDER BY order_id LIMIT $3",
    )
    .bind(state.map_or("", State::name))
    .bind(after.map(|order| order.to_string()).unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Payment, PaymentError> {
    let order: String = row.try_get("order_id")?;
    let damaged = |column, value: String| PaymentError::Damaged { order: order.clone(), column, value };
    let payment_id: String = row.try_get("payment_id")?;
    let state: String = row.try_get("state")?;
    let minor: Option<i64> = row.try_get("amount_minor")?;
    let currency: Option<String> = row.try_get("currency")?;
    let attempts: i64 = row.try_get("attempts")?;
    let time = |column: &'static str, micros: i64| {
        Timestamp::from_microsecond(micros).map_err(|_| damaged(column, micros.to_string()))
    };
    let amount = match (minor, currency) {
        (Some(minor), Some(currency)) => {
            let currency = currency.parse().map_err(|_| damaged("currency", currency))?;
            Some(Money { minor, currency })
        }
        _ => None,
    };
    let unsettled_since: Option<i64> = row.try_get("unsettled_since")?;
    Ok(Payment {
        order_id: order.parse().map_err(|_| damaged("order_id", order.clone()))?,
        payment_id: payment_id.parse().map_err(|_| damaged("payment_id", payment_id))?,
        state: State::named(&state).ok_or_else(|| damaged("state", state))?,
        amount,
        charge_id: row.try_get("charge_id")?,
        reason: row.try_get("reason")?,
        attempts: u32::try_from(attempts).map_err(|_| damaged("attempts", attempts.to_string()))?,
        unsettled_since: unsettled_since.map(|micros| time("unsettled_since", micros)).transpose()?,
        created_at: time("created_at", row.try_get("created_at")?)?,
        updated_at: time("updated_at", row.try_get("updated_at")?)?,
    })
}
