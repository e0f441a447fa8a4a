//! Stock and reservations in SQL: one text for PostgreSQL and SQLite.
//!
//! Locks are taken in one order everywhere, the reservation first and then stock by sku, so that nobody waits in a ring.

use event_runtime::{
    Migration, Tx,
    database::columns::{json, undecodable},
};
use jiff::Timestamp;
use shared_events::{Money, OrderId, StockItem};
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    domain::{Rejection, State, StockLevel},
    error::StockError,
};

pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "stock and reservations", sql: include_str!("../migrations/0001_stock.sql") },
    Migration { version: 2, name: "the first products", sql: include_str!("../migrations/0002_products.sql") },
];

// Conditional: whoever comes second sees what the first has left, in any isolation level.
const RESERVE: &str =
    "UPDATE stock SET available = available - $1, reserved = reserved + $1 WHERE sku = $2 AND available >= $1";
const RELEASE: &str =
    "UPDATE stock SET reserved = reserved - $1, available = available + $1 WHERE sku = $2 AND reserved >= $1";
const COMMIT: &str = "UPDATE stock SET reserved = reserved - $1, sold = sold + $1 WHERE sku = $2 AND reserved >= $1";

/// Locks the reservation of an order until the transaction ends, and says how far it has come and what it holds. An
/// order that is not known yet gets an open reservation: two first events about one order wait for each other too.
///
/// # Errors
/// When a statement fails.
pub async fn lock(tx: &mut Tx, order: OrderId, now: Timestamp) -> Result<(State, Vec<StockItem>), sqlx::Error> {
    sqlx::query(
        "INSERT INTO reservations (order_id, state, items, changed_at, version) VALUES ($1, 'open', '[]', $2, 0) \
         ON CONFLICT (order_id) DO NOTHING",
    )
    .bind(order.to_string())
    .bind(now.as_microsecond())
    .execute(tx.conn())
    .await?;
    let row = sqlx::query("UPDATE reservations SET version = version + 1 WHERE order_id = $1 RETURNING state, items")
        .bind(order.to_string())
        .fetch_one(tx.conn())
        .await?;
    Ok((state(&row)?, json(&row, "items")?))
}

/// Stores how far a locked reservation has come; what it holds stays.
///
/// # Errors
/// When the statement fails.
pub async fn save(tx: &mut Tx, order: OrderId, state: State, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE reservations SET state = $1, changed_at = $2 WHERE order_id = $3")
        .bind(state.as_str())
        .bind(now.as_microsecond())
        .bind(order.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Stores that a locked reservation was refused, and why.
///
/// # Errors
/// When the statement fails.
pub async fn save_rejected(tx: &mut Tx, order: OrderId, reason: &Rejection, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE reservations SET state = 'rejected', reason = $1, changed_at = $2 WHERE order_id = $3")
        .bind(reason.to_string())
        .bind(now.as_microsecond())
        .bind(order.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Sets all of `items` aside and notes them at the locked reservation, or sets nothing aside and says why. Items are
/// sorted by sku.
///
/// # Errors
/// When a statement fails.
pub async fn reserve(
    tx: &mut Tx,
    order: OrderId,
    items: &[StockItem],
    now: Timestamp,
) -> Result<Result<(), Rejection>, StockError> {
    for (position, item) in items.iter().enumerate() {
        if shift(tx, RESERVE, item).await? {
            continue;
        }
        // What was taken before goes back in the same transaction; nobody saw it, since the rows are still locked.
        for taken in &items[..position] {
            put_back(tx, order, RELEASE, taken).await?;
        }
        return Ok(Err(shortage(tx, &item.sku).await?));
    }
    sqlx::query("UPDATE reservations SET state = 'reserved', items = $1, changed_at = $2 WHERE order_id = $3")
        .bind(serde_json::to_string(items).map_err(|error| sqlx::Error::Encode(error.into()))?)
        .bind(now.as_microsecond())
        .bind(order.to_string())
        .execute(tx.conn())
        .await?;
    Ok(Ok(()))
}

/// Makes what the locked reservation holds available again.
///
/// # Errors
/// When a statement fails, or less is reserved than the reservation holds.
pub async fn release(tx: &mut Tx, order: OrderId, items: &[StockItem], now: Timestamp) -> Result<(), StockError> {
    for item in items {
        put_back(tx, order, RELEASE, item).await?;
    }
    Ok(save(tx, order, State::Released, now).await?)
}

/// Makes what the locked reservation holds sold.
///
/// # Errors
/// When a statement fails, or less is reserved than the reservation holds.
pub async fn commit(tx: &mut Tx, order: OrderId, items: &[StockItem], now: Timestamp) -> Result<(), StockError> {
    for item in items {
        put_back(tx, order, COMMIT, item).await?;
    }
    Ok(save(tx, order, State::Committed, now).await?)
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

/// Runs one of the statements above. False when there is too little to move, or no such product.
async fn shift(tx: &mut Tx, statement: &'static str, item: &StockItem) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(statement).bind(i64::from(item.quantity)).bind(item.sku.as_str()).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

async fn put_back(tx: &mut Tx, order: OrderId, statement: &'static str, item: &StockItem) -> Result<(), StockError> {
    if shift(tx, statement, item).await? {
        return Ok(());
    }
    Err(StockError::NotReserved { order, sku: item.sku.clone() })
}

async fn shortage(tx: &mut Tx, sku: &str) -> Result<Rejection, sqlx::Error> {
    let row = sqlx::query("SELECT available FROM stock WHERE sku = $1").bind(sku).fetch_optional(tx.conn()).await?;
    let sku = sku.to_owned();
    Ok(match row {
        Some(row) => Rejection::OutOfStock { sku, left: row.try_get("available")? },
        None => Rejection::UnknownSku(sku),
    })
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

fn state(row: &AnyRow) -> Result<State, sqlx::Error> {
    let text: String = row.try_get("state")?;
    let state = State::ALL.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| undecodable("state", format!("{text:?} is no state of a reservation")))
}
