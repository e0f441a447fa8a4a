//! What inventory-service's database says, for auditors: stock and reservations.

use event_runtime::{
    cli::Export,
    database::columns::{json, moment},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Row as _, any::AnyRow};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StockRow {
    sku: String,
    seeded: i64,
    adjustments: i64,
    available: i64,
    reserved: i64,
    sold: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReservationRow {
    order_id: String,
    state: String,
    /// What is or was set aside.
    items: Value,
    reason: Option<String>,
    changed_at: Timestamp,
}

/// Exports them.
///
/// # Errors
/// When the database cannot be read, or stdout not be written.
pub async fn audit(export: &mut Export) -> anyhow::Result<()> {
    let stock = "SELECT sku, seeded, adjustments, available, reserved, sold FROM stock ORDER BY sku";
    let level = |row: &AnyRow| {
        Ok(StockRow {
            sku: row.try_get(0)?,
            seeded: row.try_get(1)?,
            adjustments: row.try_get(2)?,
            available: row.try_get(3)?,
            reserved: row.try_get(4)?,
            sold: row.try_get(5)?,
        })
    };
    export.rows("stock", stock, level).await?;
    let reservations = "SELECT order_id, state, items, reason, changed_at FROM reservations ORDER BY order_id";
    let reservation = |row: &AnyRow| {
        Ok(ReservationRow {
            order_id: row.try_get(0)?,
            state: row.try_get(1)?,
            items: json(row, 2)?,
            reason: row.try_get(3)?,
            changed_at: moment(row, 4)?,
        })
    };
    export.rows("reservation", reservations, reservation).await
}
