//! `SERVICE audit`: what a service's database says, for auditors, who must not read its tables.
//!
//! One JSON object a line, each with its `kind`, all of one moment. The last line is of the kind `export` and says which
//! service it was, when, and how many lines came before it: a file that was cut short is noticed. Nothing is written, so
//! it may run beside the service.

use std::collections::BTreeMap;

use anyhow::Context;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr, any::AnyRow};

use super::{DatabaseArgs, Format, Output, exit};
use crate::{
    Clock, Tx,
    database::columns::{bytes_of, moment},
};

/// What `audit` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How to write it; table counts the rows of each kind
    #[arg(short, long, value_enum, default_value_t = Format::Jsonl)]
    output: Format,
}

/// Exports `rows`, what only this service knows, and what every service on the runtime has: outbox and inbox.
///
/// # Errors
/// When the database cannot be read, or stdout not be written.
pub async fn audit(
    service: &'static str,
    args: &AuditArgs,
    rows: impl AsyncFnOnce(&mut Export) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let database = args.database.existing()?;
    // Before the first read: whatever is older than this is in the export.
    let at = Clock::system().now();
    let tx = database.begin_snapshot().await;
    let tx = tx.with_context(|| format!("the database at {} cannot be read", database.place()))?;
    let output = Output::new(args.output);
    let mut export = Export { output, tx, counts: BTreeMap::new(), document: Vec::new() };
    let exported = async {
        rows(&mut export).await?;
        of_the_runtime(&mut export).await
    };
    exported.await.with_context(|| {
        format!("the database at {} cannot be exported; has {service} ever started on it?", database.place())
    })?;
    export.end(service, at)?;
    database.close().await;
    Ok(exit::OK)
}

/// An export under way.
pub struct Export {
    output: Output,
    tx: Tx,
    counts: BTreeMap<&'static str, u64>,
    // What `-o json` collects, since it is one document.
    document: Vec<Value>,
}

#[derive(Serialize)]
struct Line<R> {
    kind: &'static str,
    #[serde(flatten)]
    row: R,
}

#[derive(Serialize)]
struct End {
    service: &'static str,
    at: Timestamp,
    rows: u64,
}

impl Export {
    /// Exports the rows of `sql`, which `read` makes objects of, under `kind`.
    ///
    /// # Errors
    /// When the statement fails, a row cannot be read, or stdout not be written.
    pub async fn rows<R: Serialize>(
        &mut self,
        kind: &'static str,
        sql: impl SqlSafeStr,
        read: impl Fn(&AnyRow) -> Result<R, sqlx::Error>,
    ) -> anyhow::Result<()> {
        let Export { output, tx, counts, document } = self;
        let count = counts.entry(kind).or_default();
        let mut rows = sqlx::query(sql).fetch(tx.conn());
        while let Some(row) = rows.try_next().await.with_context(|| format!("the rows of kind {kind}"))? {
            let row = read(&row).with_context(|| format!("a row of kind {kind}"))?;
            write(output, document, Line { kind, row })?;
            *count += 1;
        }
        Ok(())
    }

    fn end(mut self, service: &'static str, at: Timestamp) -> anyhow::Result<()> {
        let row = End { service, at, rows: self.counts.values().sum() };
        write(&self.output, &mut self.document, Line { kind: "export", row })?;
        match self.output.format() {
            Format::Table => {
                let rows: Vec<_> = self
                    .counts
                    .iter()
                    .map(|(kind, count)| (None, vec![(*kind).to_owned(), count.to_string()]))
                    .collect();
                self.output.table(&["KIND", "ROWS"], &rows)?;
            }
            Format::Json => self.output.value(&self.document)?,
            Format::Jsonl => {}
        }
        Ok(())
    }
}

fn write<R: Serialize>(output: &Output, document: &mut Vec<Value>, line: Line<R>) -> anyhow::Result<()> {
    match output.format() {
        Format::Table => {}
        Format::Json => document.push(serde_json::to_value(line)?),
        Format::Jsonl => output.value(&line)?,
    }
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutboxRow {
    event_id: String,
    topic: String,
    key: String,
    /// When it is or was due.
    due_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InboxRow {
    group: String,
    event_id: String,
    handled_at: Timestamp,
    /// `handled` or `dead`.
    fate: &'static str,
}

async fn of_the_runtime(export: &mut Export) -> anyhow::Result<()> {
    let outbox_row = |row: &AnyRow| {
        Ok(OutboxRow {
            event_id: row.try_get(0)?,
            topic: row.try_get(1)?,
            key: row.try_get(2)?,
            due_at: moment(row, 3)?,
            reason: row.try_get(4)?,
        })
    };
    let waiting = "SELECT event_id, topic, record_key, created_at, CAST(NULL AS TEXT) FROM outbox ORDER BY seq";
    export.rows("outbox", waiting, outbox_row).await?;
    let delayed = "SELECT event_id, topic, record_key, not_before, CAST(NULL AS TEXT) FROM outbox_delayed ORDER BY seq";
    export.rows("outbox-delayed", delayed, outbox_row).await?;
    // What was set aside need not be text.
    let dialect = export.tx.dialect();
    let [event_id, topic, key] = ["event_id", "topic", "record_key"].map(|column| bytes_of(column, dialect));
    let poison = format!("SELECT {event_id}, {topic}, {key}, created_at, reason FROM outbox_poison ORDER BY seq");
    let text = |row: &AnyRow, column: usize| {
        row.try_get::<Vec<u8>, _>(column).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let poison_row = |row: &AnyRow| {
        Ok(OutboxRow {
            event_id: text(row, 0)?,
            topic: text(row, 1)?,
            key: text(row, 2)?,
            due_at: moment(row, 3)?,
            reason: row.try_get(4)?,
        })
    };
    export.rows("outbox-poison", AssertSqlSafe(poison), poison_row).await?;
    let inbox = "SELECT consumer_group, event_id, handled_at, dead_replay FROM inbox ORDER BY consumer_group, event_id";
    let inbox_row = |row: &AnyRow| {
        Ok(InboxRow {
            group: row.try_get(0)?,
            event_id: row.try_get(1)?,
            handled_at: moment(row, 2)?,
            fate: row.try_get::<Option<i64>, _>(3)?.map_or("handled", |_| "dead"),
        })
    };
    export.rows("inbox", inbox, inbox_row).await
}
