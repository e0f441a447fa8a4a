//! `topics`: what is declared in code, and what is there.

use std::collections::BTreeMap;

use clap::Subcommand;
use event_runtime::{
    cli::{Format, KafkaArgs, Output, Paint, exit},
    reader::Brokers,
    topics::{TopicSpec, ensure},
};
use serde::Serialize;
use shared_events::topics::{GROUPS, TOPICS};

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// List topics: those declared in code, and any other
    List(TopicsArgs),
    /// Create the declared topics that are missing; those that exist are left as they are
    Apply(TopicsArgs),
}

#[derive(Debug, clap::Args)]
pub struct TopicsArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
}

pub async fn run(command: TopicsCommand) -> anyhow::Result<u8> {
    match command {
        TopicsCommand::List(args) => list(&args),
        TopicsCommand::Apply(args) => apply(&args).await,
    }
}

async fn apply(args: &TopicsArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let wanted = declared();
    let created = ensure(&kafka, &wanted).await?;
    match output.format() {
        Format::Table => created.iter().try_for_each(|name| output.line(format_args!("created {name}")))?,
        Format::Json | Format::Jsonl => output.rows(&created)?,
    }
    output.note(format_args!("{} topics are declared, {} were missing", wanted.len(), created.len()));
    Ok(exit::OK)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    /// None: it does not exist.
    partitions: Option<i32>,
    /// How many offsets it holds; more than its records where some were compacted.
    records: Option<i64>,
    declared_partitions: Option<i32>,
    declared_retention_seconds: Option<u64>,
}

fn list(args: &TopicsArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let brokers = Brokers::new(&kafka, None)?;
    let existing = brokers.topics()?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for spec in declared() {
        let row = Row {
            topic: spec.name.clone(),
            partitions: None,
            records: None,
            declared_partitions: Some(spec.partitions),
            declared_retention_seconds: Some(spec.retention.as_secs()),
        };
        rows.insert(spec.name, row);
    }
    for (topic, partitions) in existing {
        let mut records = 0;
        for partition in 0..partitions {
            let (low, high) = brokers.watermarks(&topic, partition)?;
            records += high - low;
        }
        let row = rows.entry(topic.clone()).or_insert(Row {
            topic,
            partitions: None,
            records: None,
            declared_partitions: None,
            declared_retention_seconds: None,
        });
        (row.partitions, row.records) = (Some(partitions), Some(records));
    }
    let rows: Vec<Row> = rows.into_values().collect();
    match output.format() {
        Format::Table => write(&output, &rows)?,
        Format::Json | Format::Jsonl => output.rows(&rows)?,
    }
    Ok(exit::OK)
}

fn write(output: &Output, rows: &[Row]) -> std::io::Result<()> {
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let retention = row.declared_retention_seconds.map_or("-".to_owned(), days);
            let cells = vec![
                row.topic.clone(),
                number(row.partitions.map(i64::from)),
                number(row.records),
                retention,
                row.note(),
            ];
            (row.paint(), cells)
        })
        .collect();
    output.table(&["TOPIC", "PARTITIONS", "RECORDS", "RETENTION", "NOTE"], &lines)
}

impl Row {
    fn note(&self) -> String {
        match (self.partitions, self.declared_partitions) {
            (None, _) => "missing: eventctl topics apply".to_owned(),
            (Some(_), None) => "not declared".to_owned(),
            (Some(there), Some(declared)) if there != declared => format!("declared with {declared} partitions"),
            (Some(_), Some(_)) => String::new(),
        }
    }

    fn paint(&self) -> Option<Paint> {
        match (self.partitions, self.declared_partitions) {
            (None, _) => Some(Paint::Bad),
            (Some(there), Some(declared)) if there != declared => Some(Paint::Open),
            _ => None,
        }
    }
}

fn days(seconds: u64) -> String {
    format!("{}d", seconds / (24 * 60 * 60))
}

/// Every topic that events or dead letters of the order system go to.
pub fn declared() -> Vec<TopicSpec> {
    let events = TOPICS.iter().map(|topic| TopicSpec::from(*topic));
    let quarantines =
        GROUPS.iter().flat_map(|group| group.topics.iter().map(|topic| TopicSpec::quarantine(*topic, group.name)));
    events.chain(GROUPS.iter().flat_map(TopicSpec::dead_letters_of)).chain(quarantines).collect()
}
