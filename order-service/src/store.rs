//! Orders in SQL: one text for PostgreSQL and SQLite.
//!
//! Whoever changes an order calls [`lock`] first, which writes to its row: two events about one order, on two topics
//! and perhaps in two processes, are handled one after the other.

mod timeline;

use std::collections::HashSet;

use event_runtime::{
    Migration, Tx,
    database::columns::{json, moment, optional_moment, undecodable},
};
use jiff::Timestamp;
use shared_events::{Money, OrderId};
use sqlx::{AnyPool, AssertSqlSafe, Row, any::AnyRow};
pub use timeline::{Entry, WriteBack, note_if_known, of_order, record};

use crate::domain::{Order, Payment, Saga, State, Stock};

pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "orders and their timeline", sql: include_str!("../migrations/0001_orders.sql") }];

/// What [`stored_order`] reads.
const COLUMNS: &str = "id, state, reason, payment, payment_id, stock, customer, items, total_minor, currency, \
                       created_at, expires_at, ended_at";

/// An order and what only its readers want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOrder {
    pub order: Order,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// The request that placed an order, as far as a repetition of it must be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub idempotency_key: Option<String>,
    /// Equal for requests that ask for the same.
    pub fingerprint: String,
}

/// Stores new orders, and answers the ids of those it stored: an order whose idempotency key has placed one already is
/// left out. A concurrent transaction with the same key is waited for; so bring orders sorted by their keys, or two
/// transactions may wait for each other.
///
/// # Errors
/// When the statement fails.
pub async fn insert(tx: &mut Tx, orders: &[(&StoredOrder, &Request)]) -> Result<HashSet<OrderId>, sqlx::Error> {
    let rows: Vec<String> = (0..orders.len()).map(|row| format!("({}, 1)", placeholders(row * 14, 14))).collect();
    let sql = format!(
        "INSERT INTO orders (id, state, reason, payment, payment_id, stock, customer, items, total_minor, currency, \
         created_at, expires_at, idempotency_key, fingerprint, version) VALUES {} \
         ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
        rows.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(worth_preparing(orders.len()));
    for (StoredOrder { order, created_at, expires_at, ended_at: _ }, request) in orders {
        let items = serde_json::to_string(&order.items).map_err(|error| sqlx::Error::Encode(error.into()))?;
        query = query
            .bind(order.id.to_string())
            .bind(state_text(order.saga.state))
            .bind(order.saga.reason.clone())
            .bind(payment_text(order.saga.payment))
            .bind(payment_id_text(order.saga.payment))
            .bind(stock_text(order.saga.stock))
            .bind(order.customer.clone())
            .bind(items)
            .bind(order.total.minor)
            .bind(order.total.currency.code().to_owned())
            .bind(created_at.as_microsecond())
            .bind(expires_at.as_microsecond())
            .bind(request.idempotency_key.clone())
            .bind(request.fingerprint.clone());
    }
    query.fetch_all(tx.conn()).await?.iter().map(|row| parsed(row, "id")).collect()
}

/// The order that `idempotency_key` placed, and the fingerprint of the request.
///
/// # Errors
/// When the query fails.
pub async fn placed_with(pool: &AnyPool, idempotency_key: &str) -> Result<Option<(StoredOrder, String)>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS}, fingerprint FROM orders WHERE idempotency_key = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(idempotency_key.to_owned()).fetch_optional(pool).await?;
    row.map(|row| Ok((stored_order(&row)?, row.try_get("fingerprint")?))).transpose()
}

/// Locks the order until the transaction ends, and reads it.
///
/// # Errors
/// When the statement fails.
pub async fn lock(tx: &mut Tx, id: OrderId) -> Result<Option<Order>, sqlx::Error> {
    let row = sqlx::query(
        "UPDATE orders SET version = version + 1 WHERE id = $1 RETURNING id, state, reason, payment, payment_id, \
         stock, customer, items, total_minor, currency",
    )
    .bind(id.to_string())
    .fetch_optional(tx.conn())
    .await?;
    row.map(|row| order(&row)).transpose()
}

/// Stores how far a locked order has come; `ended_at` if that is its end.
///
/// # Errors
/// When the statement fails.
pub async fn save(tx: &mut Tx, id: OrderId, saga: &Saga, ended_at: Option<Timestamp>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE orders SET state = $1, reason = $2, payment = $3, payment_id = $4, stock = $5, \
         ended_at = COALESCE($6, ended_at) WHERE id = $7",
    )
    .bind(state_text(saga.state))
    .bind(saga.reason.clone())
    .bind(payment_text(saga.payment))
    .bind(payment_id_text(saga.payment))
    .bind(stock_text(saga.stock))
    .bind(ended_at.map(Timestamp::as_microsecond))
    .bind(id.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// One order.
///
/// # Errors
/// When the query fails.
pub async fn find(pool: &AnyPool, id: OrderId) -> Result<Option<StoredOrder>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(pool).await?;
    row.map(|row| stored_order(&row)).transpose()
}

/// Up to `limit` orders, the newest first (ids sort by the time they were made), from the one after `after` on.
///
/// # Errors
/// When the query fails.
pub async fn list(
    pool: &AnyPool,
    state: Option<State>,
    after: Option<OrderId>,
    limit: i64,
) -> Result<Vec<StoredOrder>, sqlx::Error> {
    // Above every UUID: digits and letters a to f sort below `g` in every collation.
    let before = after.map_or_else(|| "g".to_owned(), |id| id.to_string());
    let query = match state {
        None => {
            let sql = format!("SELECT {COLUMNS} FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $2");
            sqlx::query(AssertSqlSafe(sql)).bind(before).bind(limit)
        }
        Some(state) => {
            let sql = format!("SELECT {COLUMNS} FROM orders WHERE state = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
            sqlx::query(AssertSqlSafe(sql)).bind(state_text(state)).bind(before).bind(limit)
        }
    };
    query.fetch_all(pool).await?.iter().map(stored_order).collect()
}

/// Those of `ids` that there are, the newest first.
///
/// # Errors
/// When the query fails.
pub async fn these(pool: &AnyPool, ids: &[OrderId]) -> Result<Vec<StoredOrder>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id IN ({}) ORDER BY id DESC", placeholders(0, ids.len()));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(worth_preparing(ids.len()));
    for id in ids {
        query = query.bind(id.to_string());
    }
    query.fetch_all(pool).await?.iter().map(stored_order).collect()
}

fn stored_order(row: &AnyRow) -> Result<StoredOrder, sqlx::Error> {
    Ok(StoredOrder {
        order: order(row)?,
        created_at: moment(row, "created_at")?,
        expires_at: moment(row, "expires_at")?,
        ended_at: optional_moment(row, "ended_at")?,
    })
}

fn order(row: &AnyRow) -> Result<Order, sqlx::Error> {
    let currency: String = row.try_get("currency")?;
    Ok(Order {
        id: parsed(row, "id")?,
        customer: row.try_get("customer")?,
        items: json(row, "items")?,
        total: Money {
            minor: row.try_get("total_minor")?,
            currency: currency.parse().map_err(|error| undecodable("currency", error))?,
        },
        saga: Saga {
            state: state_from(row)?,
            reason: row.try_get("reason")?,
            payment: payment_from(row)?,
            stock: stock_from(row)?,
        },
    })
}

pub fn state_text(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Completed => "completed",
        State::Cancelled => "cancelled",
    }
}

fn state_from(row: &AnyRow) -> Result<State, sqlx::Error> {
    let text: String = row.try_get("state")?;
    state_from_text(&text).ok_or_else(|| undecodable("state", format!("{text:?} is no state of an order")))
}

pub fn state_from_text(text: &str) -> Option<State> {
    [State::Pending, State::Completed, State::Cancelled].into_iter().find(|state| state_text(*state) == text)
}

pub fn payment_text(payment: Payment) -> &'static str {
    match payment {
        Payment::Open => "open",
        Payment::Failed => "failed",
        Payment::Succeeded(_) => "succeeded",
        Payment::Refunded(_) => "refunded",
    }
}

fn payment_id_text(payment: Payment) -> Option<String> {
    match payment {
        Payment::Open | Payment::Failed => None,
        Payment::Succeeded(id) | Payment::Refunded(id) => Some(id.to_string()),
    }
}

fn payment_from(row: &AnyRow) -> Result<Payment, sqlx::Error> {
    match row.try_get::<String, _>("payment")?.as_str() {
        "open" => Ok(Payment::Open),
        "failed" => Ok(Payment::Failed),
        "succeeded" => Ok(Payment::Succeeded(parsed(row, "payment_id")?)),
        "refunded" => Ok(Payment::Refunded(parsed(row, "payment_id")?)),
        other => Err(undecodable("payment", format!("{other:?} is no state of a payment"))),
    }
}

pub fn stock_text(stock: Stock) -> &'static str {
    match stock {
        Stock::Open => "open",
        Stock::Rejected => "rejected",
        Stock::Reserved => "reserved",
        Stock::Released => "released",
        Stock::Committed => "committed",
    }
}

fn stock_from(row: &AnyRow) -> Result<Stock, sqlx::Error> {
    match row.try_get::<String, _>("stock")?.as_str() {
        "open" => Ok(Stock::Open),
        "rejected" => Ok(Stock::Rejected),
        "reserved" => Ok(Stock::Reserved),
        "released" => Ok(Stock::Released),
        "committed" => Ok(Stock::Committed),
        other => Err(undecodable("stock", format!("{other:?} is no state of a reservation"))),
    }
}

fn parsed<T>(row: &AnyRow, column: &'static str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<String, _>(column)?.parse().map_err(|error: T::Err| undecodable(column, error))
}

/// `$5, $6, $7` for `count` 3 after 4 others.
fn placeholders(after: usize, count: usize) -> String {
    let names: Vec<String> = (after + 1..=after + count).map(|number| format!("${number}")).collect();
    names.join(", ")
}

/// A statement's text depends on its number of rows. Only those for a few rows come again often enough to be kept.
fn worth_preparing(rows: usize) -> bool {
    rows <= 4
}

#[cfg(test)]
mod tests {
    use super::placeholders;

    #[test]
    fn placeholders_count_on() {
        assert_eq!(placeholders(0, 3), "$1, $2, $3");
        assert_eq!(placeholders(12, 2), "$13, $14");
    }
}
