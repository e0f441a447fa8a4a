//! `dlt purge`: deletes dead letters, whole topics of them from the oldest on, as Kafka can.

use std::collections::BTreeMap;

use event_runtime::{
    cli::{KafkaArgs, Output, Paint, exit},
    reader::{Brokers, Committed},
    topics::delete_records,
};
use serde::Serialize;

use super::letters::{Letters, REPLAY_GROUP, State, TopicArgs};

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true, args = ["topic", "group", "all"])]
pub struct PurgeArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Those of all topics and groups
    #[arg(long)]
    all: bool,

    /// Only up to the first letter of each partition that waits for its replay
    #[arg(long)]
    replayed: bool,

    /// Do it
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// What is deleted of one topic.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    /// Records that are no dead letters included.
    records: u64,
    /// Those that nobody has replayed.
    waiting: u64,
}

pub async fn run(args: &PurgeArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let letters = Letters::read(&output, &kafka, &args.topics, |_, _| true)?;
    let group = Brokers::new(&kafka, Some(REPLAY_GROUP))?;
    let (mut before, mut passed) = (BTreeMap::new(), BTreeMap::new());
    for (partition, done) in &letters.done {
        let (low, high) = group.watermarks(&partition.0, partition.1)?;
        let end = if args.replayed { done.position().unwrap_or(low) } else { high };
        if end <= low {
            continue;
        }
        before.insert(partition.clone(), end);
        if done.position().is_none_or(|position| position < end) {
            passed.insert(partition.clone(), Committed { offset: end, metadata: String::new() });
        }
    }
    let rows = rows(&letters, &before);
    write(&output, &rows)?;
    if !args.execute {
        let count: u64 = rows.iter().map(|row| row.records).sum();
        let next = if count > 0 { "--execute deletes them, for good" } else { "there is nothing to do" };
        output.note(format_args!("this is the plan for {count} records; {next}"));
        return Ok(exit::OK);
    }
    if !before.is_empty() {
        delete_records(&kafka, &before).await?;
    }
    if !passed.is_empty() {
        // What is deleted is not left to be replayed.
        group.commit(&passed)?;
    }
    output.note("deleted");
    Ok(exit::OK)
}

fn rows(letters: &Letters, before: &BTreeMap<(String, i32), i64>) -> Vec<Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let readable = letters.letters.iter().map(|letter| (&letter.place, letter.state == State::Waiting));
    let unreadable = letters.unreadable.iter().map(|place| (place, false));
    for (place, waiting) in readable.chain(unreadable) {
        let end = before.get(&(place.topic.to_string(), place.partition));
        if end.is_some_and(|end| place.offset < *end) {
            let row = rows.entry(&place.topic).or_default();
            row.topic = place.topic.to_string();
            row.records += 1;
            row.waiting += u64::from(waiting);
        }
    }
    rows.into_values().collect()
}

fn write(output: &Output, rows: &[Row]) -> std::io::Result<()> {
    if !output.is_table() {
        return output.rows(rows);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells = vec![row.topic.clone(), row.records.to_string(), row.waiting.to_string()];
            ((row.waiting > 0).then_some(Paint::Bad), cells)
        })
        .collect();
    output.table(&["DEAD-LETTER TOPIC", "RECORDS", "WAITING"], &lines)
}
