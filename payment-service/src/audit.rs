//! What payment-service's database says, for auditors: every payment.

use event_runtime::{
    cli::Export,
    database::columns::{moment, optional_moment},
};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Row as _, any::AnyRow};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRow {
    order_id: String,
    payment_id: String,
    state: String,
    amount: Option<AmountRow>,
    charge_id: Option<String>,
    reason: Option<String>,
    /// Since when the gateway may be charging without anybody waiting for its answer.
    unsettled_since: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct AmountRow {
    minor: i64,
    currency: String,
}

/// Exports them.
///
/// # Errors
/// When the database cannot be read, or stdout not be written.
pub async fn audit(export: &mut Export) -> anyhow::Result<()> {
    let payments = "SELECT order_id, payment_id, state, amount_minor, currency, charge_id, reason, unsettled_since, \
                    created_at, updated_at FROM payments ORDER BY order_id";
    let payment = |row: &AnyRow| {
        let (minor, currency): (Option<i64>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
        Ok(PaymentRow {
            order_id: row.try_get(0)?,
            payment_id: row.try_get(1)?,
            state: row.try_get(2)?,
            amount: minor.zip(currency).map(|(minor, currency)| AmountRow { minor, currency }),
            charge_id: row.try_get(5)?,
            reason: row.try_get(6)?,
            unsettled_since: optional_moment(row, 7)?,
            created_at: moment(row, 8)?,
            updated_at: moment(row, 9)?,
        })
    };
    export.rows("payment", payments, payment).await
}
