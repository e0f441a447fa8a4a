//! What email-service's database says, for auditors: every mail. Whom it went to and what it said is nobody's business
//! but the customer's.

use event_runtime::{cli::Export, database::columns::moment};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Row as _, any::AnyRow};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MailRow {
    order_id: String,
    about: String,
    message_id: String,
    state: String,
    error: Option<String>,
    changed_at: Timestamp,
}

/// Exports them.
///
/// # Errors
/// When the database cannot be read, or stdout not be written.
pub async fn audit(export: &mut Export) -> anyhow::Result<()> {
    let mails = "SELECT order_id, about, message_id, state, error, changed_at FROM mails ORDER BY order_id, about";
    let mail = |row: &AnyRow| {
        Ok(MailRow {
            order_id: row.try_get(0)?,
            about: row.try_get(1)?,
            message_id: row.try_get(2)?,
            state: row.try_get(3)?,
            error: row.try_get(4)?,
            changed_at: moment(row, 5)?,
        })
    };
    export.rows("mail", mails, mail).await
}
