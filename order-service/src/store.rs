//! Orders in SQL: one text for PostgreSQL and SQLite.
//!
//! Whoever changes orders calls [`lock`] first: two events about one order, on two topics and perhaps in two processes, are
//! handled one after the other.

mod timeline;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use event_runtime::{
    Migration, Tx,
    database::{
        columns::{json, moment, optional_moment, undecodable},
        rows::{
            self,
            Column::{BigInt, Text},
        },
    },
};
use jiff::Timestamp;
use shared_events::{Money, OrderId};
use sqlx::{AnyPool, AssertSqlSafe, Row, any::AnyRow};
pub use timeline::{Entry, WriteBack, note_if_known, of_order, record};

use crate::domain::{Order, Payment, Saga, State, Stock};

pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "orders and their timeline", sql: include_str!("../migrations/0001_orders.sql") }];

/// The most rows in a statement.
const MOST_ROWS: usize = 128;

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
    let mut stored = HashSet::with_capacity(orders.len());
    for orders in rows::chunks(orders, MOST_ROWS) {
        let sql = format!(
            "INSERT INTO orders (id, state, reason, payment, payment_id, stock, customer, items, total_minor, currency, \
             created_at, expires_at, idempotency_key, fingerprint, version) VALUES {} \
             ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
            rows::values(0, orders.len(), 15)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
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
                .bind(request.fingerprint.clone())
                .bind(1_i64);
        }
        for row in query.fetch_all(tx.conn()).await? {
            stored.insert(parsed(&row, "id")?);
        }
    }
    Ok(stored)
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

/// Locks those of `ids` that there are until the transaction ends, and reads them.
///
/// # Errors
/// When a statement fails.
pub async fn lock(tx: &mut Tx, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, sqlx::Error> {
    let mut orders = HashMap::with_capacity(ids.len());
    for ids in rows::chunks(ids, MOST_ROWS) {
        let sql = format!(
            "SELECT id, state, reason, payment, payment_id, stock, customer, items, total_minor, currency FROM orders \
             WHERE id IN ({}) ORDER BY id {}",
            rows::placeholders(0, ids.len()),
            tx.for_update()
        );
        let query = ids.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id.to_string()));
        for row in query.fetch_all(tx.conn()).await? {
            let order = order(&row)?;
            orders.insert(order.id, order);
        }
    }
    Ok(orders)
}

/// Stores how far locked orders have come; with a time where that is their end.
///
/// # Errors
/// When a statement fails.
pub async fn save(tx: &mut Tx, orders: &[(&Order, Option<Timestamp>)]) -> Result<(), sqlx::Error> {
    for orders in rows::chunks(orders, MOST_ROWS) {
        let columns = [Text, Text, Text, Text, Text, Text, BigInt];
        let sql = format!(
            "UPDATE orders SET state = new.column2, reason = new.column3, payment = new.column4, \
             payment_id = new.column5, stock = new.column6, ended_at = COALESCE(new.column7, ended_at), \
             version = version + 1 FROM (VALUES {}) AS new WHERE id = new.column1",
            rows::typed_values(orders.len(), &columns)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (Order { id, saga, .. }, ended_at) in orders {
            query = query
                .bind(id.to_string())
                .bind(state_text(saga.state))
                .bind(saga.reason.clone())
                .bind(payment_text(saga.payment))
                .bind(payment_id_text(saga.payment))
                .bind(stock_text(saga.stock))
                .bind(ended_at.map(Timestamp::as_microsecond));
        }
        query.execute(tx.conn()).await?;
    }
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
    let mut orders = Vec::with_capacity(ids.len());
    for ids in rows::chunks(ids, MOST_ROWS) {
        let sql = format!("SELECT {COLUMNS} FROM orders WHERE id IN ({})", rows::placeholders(0, ids.len()));
        let query = ids.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, id| query.bind(id.to_string()));
        for row in query.fetch_all(pool).await? {
            orders.push(stored_order(&row)?);
        }
    }
    orders.sort_unstable_by_key(|stored| Reverse(stored.order.id));
    Ok(orders)
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
