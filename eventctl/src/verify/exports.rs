//! Reads what `SERVICE audit` wrote: one JSON object a line, the last of an export saying how many came before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufRead,
};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use shared_events::{EventId, topics::GROUPS};

use super::facts::{Facts, InboxRow, OutboxRow, OutboxTable, PaymentRow};

/// Exports as they are read.
#[derive(Default)]
pub struct Exports {
    facts: Facts,
    services: BTreeSet<String>,
    earliest: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct End {
    service: String,
    at: Timestamp,
    rows: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InboxLine {
    group: String,
    event_id: EventId,
    #[serde(flatten)]
    row: InboxRow,
}

impl Exports {
    /// Reads one file, which may hold the exports of several services one after the other.
    ///
    /// # Errors
    /// When a line cannot be read, or an export was cut short; the message says where.
    pub fn read(&mut self, name: &str, lines: impl BufRead) -> anyhow::Result<()> {
        let mut rows = 0;
        let mut outbox_from = self.facts.outbox.len();
        for (number, line) in lines.lines().enumerate() {
            let line = line.with_context(|| format!("{name} cannot be read"))?;
            if line.trim().is_empty() {
                continue;
            }
            let at = || format!("{name}, line {}: no row of `SERVICE audit`", number + 1);
            let Kind { kind } = parse(&line).with_context(at)?;
            if kind != "export" {
                rows += 1;
                self.row(&kind, &line).with_context(at)?;
                continue;
            }
            let end: End = parse(&line).with_context(at)?;
            ensure!(
                end.rows == rows,
                "{name}: the export of {} has {rows} rows and says {}; make it again",
                end.service,
                end.rows
            );
            ensure!(
                self.services.insert(end.service.clone()),
                "{name}: a second export of {}; give one of each service",
                end.service
            );
            for row in &mut self.facts.outbox[outbox_from..] {
                row.service.clone_from(&end.service);
            }
            outbox_from = self.facts.outbox.len();
            self.earliest = Some(self.earliest.map_or(end.at, |earliest| earliest.min(end.at)));
            rows = 0;
        }
        ensure!(rows == 0, "{name} ends in the middle of an export; make it again");
        Ok(())
    }

    fn row(&mut self, kind: &str, line: &str) -> anyhow::Result<()> {
        let facts = &mut self.facts;
        match kind {
            "order" => insert(&mut facts.orders, line, |row| row.order_id)?,
            "payment" => {
                let row: PaymentRow = parse(line)?;
                facts.payments.insert(row.order_id, row);
            }
            "reservation" => insert(&mut facts.reservations, line, |row| row.order_id)?,
            "stock" => facts.stock.push(parse(line)?),
            "mail" => facts.mail_rows.push(parse(line)?),
            "outbox" => facts.outbox.push(outbox(line, OutboxTable::Due)?),
            "outbox-delayed" => facts.outbox.push(outbox(line, OutboxTable::Delayed)?),
            "outbox-poison" => facts.outbox.push(outbox(line, OutboxTable::Poison)?),
            "inbox" => {
                let InboxLine { group, event_id, row } = parse(line)?;
                facts.inbox.entry(group).or_default().insert(event_id, row);
            }
            // A newer service may export more than this version asks for.
            _ => drop(parse::<Value>(line)?),
        }
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// When a service is missing: rules that nobody checks would look as if they held.
    pub fn complete(self) -> anyhow::Result<Facts> {
        let missing: Vec<_> =
            GROUPS.iter().map(|group| group.name).filter(|name| !self.services.contains(*name)).collect();
        if !missing.is_empty() {
            bail!(
                "no export of {}; write each with `SERVICE audit --database-url URL > FILE` and give it with --audit",
                missing.join(", ")
            );
        }
        Ok(Facts { at: self.earliest.unwrap_or_default(), ..self.facts })
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(line)
}

fn insert<K: Ord, R: DeserializeOwned>(
    rows: &mut BTreeMap<K, R>,
    line: &str,
    key: impl Fn(&R) -> K,
) -> anyhow::Result<()> {
    let row: R = parse(line)?;
    rows.insert(key(&row), row);
    Ok(())
}

fn outbox(line: &str, table: OutboxTable) -> Result<OutboxRow, serde_json::Error> {
    Ok(OutboxRow { table, ..parse(line)? })
}
