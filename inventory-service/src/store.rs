//! Stock and reservations in SQL: one text for PostgreSQL and SQLite.
//!
//! Locks are taken in one order everywhere, reservations by order first and then stock by sku, so that nobody waits in a
//! ring.

use std::collections::{BTreeSet, HashMap};

use event_runtime::{
    Migration, Tx,
    database::{
        columns::{json, undecodable},
        rows::{
            self,
            Column::{BigInt, Text},
        },
    },
};
use jiff::Timestamp;
use shared_events::{Money, OrderId, StockItem};
use sqlx::{AnyPool, AssertSqlSafe, Row, any::AnyRow};

use crate::domain::{Moves, Shelf, State, StockLevel};

pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "stock and reservations", sql: include_str!("../migrations/0001_stock.sql") },
    Migration { version: 2, name: "the first products", sql: include_str!("../migrations/0002_products.sql") },
];

/// The most rows in a statement.
const MOST_ROWS: usize = 128;

/// What is set aside for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub order: OrderId,
    pub state: State,
    /// What is or was set aside, by sku.
    pub items: Vec<StockItem>,
    /// Why it was rejected.
    pub reason: Option<String>,
}

/// Locks the reservations of `orders` until the transaction ends. An order that is not known yet gets an open one: two first
/// events about one order wait for each other too.
///
/// # Errors
/// When a statement fails.
pub async fn lock(
    tx: &mut Tx,
    orders: &[OrderId],
    now: Timestamp,
) -> Result<HashMap<OrderId, Reservation>, sqlx::Error> {
    let mut reservations = HashMap::with_capacity(orders.len());
    for orders in rows::chunks(orders, MOST_ROWS) {
        let new = |row: usize| format!("(${}, 'open', '[]', $1, 0)", row + 2);
        let sql = format!(
            "INSERT INTO reservations (order_id, state, items, changed_at, version) VALUES {} \
             ON CONFLICT (order_id) DO NOTHING",
            (0..orders.len()).map(new).collect::<Vec<_>>().join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(now.as_microsecond());
        orders.iter().fold(query, |query, order| query.bind(order.to_string())).execute(tx.conn()).await?;
        let sql = format!(
            "SELECT order_id, state, items, reason FROM reservations WHERE order_id IN ({}) ORDER BY order_id {}",
            rows::placeholders(0, orders.len()),
            tx.for_update()
        );
        let query = orders.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, order| query.bind(order.to_string()));
        for row in query.fetch_all(tx.conn()).await? {
            let reservation = reservation(&row)?;
            reservations.insert(reservation.order, reservation);
        }
    }
    Ok(reservations)
}

/// Stores how far locked reservations have come.
///
/// # Errors
/// When a statement fails.
pub async fn save(tx: &mut Tx, reservations: &[&Reservation], now: Timestamp) -> Result<(), sqlx::Error> {
    for reservations in rows::chunks(reservations, MOST_ROWS) {
        let sql = format!(
            "UPDATE reservations SET state = new.column2, items = new.column3, reason = new.column4, changed_at = $1, \
             version = version + 1 FROM (VALUES {}) AS new WHERE order_id = new.column1",
            rows::values(1, reservations.len(), 4)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(now.as_microsecond());
        for Reservation { order, state, items, reason } in reservations {
            let items = serde_json::to_string(items).map_err(|error| sqlx::Error::Encode(error.into()))?;
            query = query.bind(order.to_string()).bind(state.as_str()).bind(items).bind(reason.clone());
        }
        query.execute(tx.conn()).await?;
    }
    Ok(())
}

/// Locks these products until the transaction ends, in the order of their skus. What is not sold here is left out.
///
/// # Errors
/// When a statement fails.
pub async fn lock_stock(tx: &mut Tx, skus: &BTreeSet<String>) -> Result<Shelf, sqlx::Error> {
    let skus: Vec<&String> = skus.iter().collect();
    let mut shelf = Shelf::default();
    for skus in rows::chunks(&skus, MOST_ROWS) {
        let sql = format!(
            "SELECT sku, available, reserved FROM stock WHERE sku IN ({}) ORDER BY sku {}",
            rows::placeholders(0, skus.len()),
            tx.for_update()
        );
        let query = skus.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, sku| query.bind((*sku).clone()));
        for row in query.fetch_all(tx.conn()).await? {
            shelf.put(row.try_get("sku")?, row.try_get("available")?, row.try_get("reserved")?);
        }
    }
    Ok(shelf)
}

/// Moves pieces of locked products.
///
/// # Errors
/// When a statement fails, or the table refuses what would make or lose a piece.
pub async fn move_pieces(tx: &mut Tx, moves: &[(&str, Moves)]) -> Result<(), sqlx::Error> {
    for moves in rows::chunks(moves, MOST_ROWS) {
        let sql = format!(
            "UPDATE stock SET available = available + moved.column2, reserved = reserved + moved.column3, \
             sold = sold + moved.column4 FROM (VALUES {}) AS moved WHERE sku = moved.column1",
            rows::typed_values(moves.len(), &[Text, BigInt, BigInt, BigInt])
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (sku, Moves { available, reserved, sold }) in moves {
            query = query.bind((*sku).to_owned()).bind(*available).bind(*reserved).bind(*sold);
        }
        query.execute(tx.conn()).await?;
    }
    Ok(())
}

/// Every product, by sku.
///
/// # Errors
/// When the query fails.
pub async fn all(pool: &AnyPool) -> Result<Vec<StockLevel>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT sku, name, price_minor, currency, seeded, adjustments, available, reserved, sold FROM stock ORDER BY sku",
    )
    .fetch_all(pool)
    .await?;
    rows.iter().map(level).collect()
}

/// One product.
///
/// # Errors
/// When the query fails.
pub async fn find(pool: &AnyPool, sku: &str) -> Result<Option<StockLevel>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT sku, name, price_minor, currency, seeded, adjustments, available, reserved, sold FROM stock WHERE sku = $1",
    )
    .bind(sku)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(level).transpose()
}

/// Makes `available` pieces of a product available; the difference is an adjustment. `None` if there is no such product.
///
/// # Errors
/// When the statement fails.
pub async fn set_available(tx: &mut Tx, sku: &str, available: i64) -> Result<Option<StockLevel>, sqlx::Error> {
    // Both columns from the row as it was: in one statement nobody can come between.
    let row = sqlx::query(
        "UPDATE stock SET adjustments = adjustments + ($1 - available), available = $1 WHERE sku = $2 \
         RETURNING sku, name, price_minor, currency, seeded, adjustments, available, reserved, sold",
    )
    .bind(available)
    .bind(sku)
    .fetch_optional(tx.conn())
    .await?;
    row.as_ref().map(level).transpose()
}

fn level(row: &AnyRow) -> Result<StockLevel, sqlx::Error> {
    let currency: String = row.try_get("currency")?;
    let currency = currency.parse().map_err(|error| undecodable("currency", error))?;
    Ok(StockLevel {
        sku: row.try_get("sku")?,
        name: row.try_get("name")?,
        price: Money { minor: row.try_get("price_minor")?, currency },
        seeded: row.try_get("seeded")?,
        adjustments: row.try_get("adjustments")?,
        available: row.try_get("available")?,
        reserved: row.try_get("reserved")?,
        sold: row.try_get("sold")?,
    })
}

fn reservation(row: &AnyRow) -> Result<Reservation, sqlx::Error> {
    let order: String = row.try_get("order_id")?;
    let text: String = row.try_get("state")?;
    let state = State::ALL.into_iter().find(|state| state.as_str() == text);
    Ok(Reservation {
        order: order.parse().map_err(|error| undecodable("order_id", error))?,
        state: state.ok_or_else(|| undecodable("state", format!("{text:?} is no state of a reservation")))?,
        items: json(row, "items")?,
        reason: row.try_get("reason")?,
    })
}
