//! What order-service's database says, for auditors: every order, without its customer.

use event_runtime::{
    cli::Export,
    database::columns::{json, moment, optional_moment},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Row as _, any::AnyRow};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderRow {
    order_id: String,
    state: String,
    reason: Option<String>,
    payment: String,
    stock: String,
    items: Value,
    total: Value,
    created_at: Timestamp,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
}

/// Exports them.
///
/// # Errors
/// When the database cannot be read, or stdout not be written.
pub async fn audit(export: &mut Export) -> anyhow::Result<()> {
    let orders = "SELECT id, state, reason, payment, stock, items, total_minor, currency, created_at, expires_at, \
                  ended_at FROM orders ORDER BY id";
    let order = |row: &AnyRow| {
        let (minor, currency): (i64, String) = (row.try_get(6)?, row.try_get(7)?);
        Ok(OrderRow {
            order_id: row.try_get(0)?,
            state: row.try_get(1)?,
            reason: row.try_get(2)?,
            payment: row.try_get(3)?,
            stock: row.try_get(4)?,
            items: json(row, 5)?,
            total: serde_json::json!({ "minor": minor, "currency": currency }),
            created_at: moment(row, 8)?,
            expires_at: moment(row, 9)?,
            ended_at: optional_moment(row, 10)?,
        })
    };
    export.rows("order", orders, order).await
}
