//! `dlt list`.

use std::collections::BTreeMap;

use event_runtime::{
    Clock,
    cli::{Format, KafkaArgs, Output, Paint, exit},
};
use jiff::Timestamp;
use serde::Serialize;

use super::letters::{Letters, State, TopicArgs};
use crate::age::age;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    topics: TopicArgs,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Dead letters of one topic, group and error class.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    group: String,
    error_class: String,
    letters: u64,
    /// Those that nobody has replayed.
    waiting: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
}

pub fn run(args: &ListArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let letters = Letters::read(&output, &kafka, &args.topics, |_, _| true)?;
    let rows = count(&letters);
    match output.format() {
        Format::Table => write(&output, &rows, Clock::system().now())?,
        Format::Json | Format::Jsonl => output.rows(&rows)?,
    }
    if let Some(place) = letters.unreadable.first() {
        let count = letters.unreadable.len();
        output.note(format_args!(
            "{count} records are no dead letters of ours, such as {place}: eventctl tail shows them"
        ));
    }
    if rows.is_empty() {
        output.note(format_args!("no dead letters in {} topics", letters.topics().len()));
    }
    Ok(exit::OK)
}

fn count(letters: &Letters) -> Vec<Row> {
    let mut rows: BTreeMap<(&str, &str, &str), Row> = BTreeMap::new();
    for letter in letters.letters.iter().filter(|letter| letter.fits) {
        let dead = &letter.dead;
        let name = (&*dead.original.topic, &*dead.group, &*dead.error_class);
        let row = rows.entry(name).or_insert_with(|| Row {
            topic: name.0.to_owned(),
            group: name.1.to_owned(),
            error_class: name.2.to_owned(),
            letters: 0,
            waiting: 0,
            oldest: None,
            newest: None,
        });
        row.letters += 1;
        row.waiting += u64::from(letter.state == State::Waiting);
        row.oldest = [row.oldest, letter.time].into_iter().flatten().min();
        row.newest = row.newest.max(letter.time);
    }
    rows.into_values().collect()
}

fn write(output: &Output, rows: &[Row], now: Timestamp) -> std::io::Result<()> {
    let age = |time: Option<Timestamp>| time.map_or("-".to_owned(), |time| age(time, now));
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells = vec![
                row.topic.clone(),
                row.group.clone(),
                row.error_class.clone(),
                row.letters.to_string(),
                row.waiting.to_string(),
                age(row.oldest),
                age(row.newest),
            ];
            ((row.waiting > 0).then_some(Paint::Bad), cells)
        })
        .collect();
    output.table(&["TOPIC", "GROUP", "ERROR CLASS", "LETTERS", "WAITING", "OLDEST", "NEWEST"], &lines)
}
