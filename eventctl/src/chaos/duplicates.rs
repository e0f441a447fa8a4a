//! Events that are delivered twice: the same bytes once more, under the same event id, as at-least-once delivery may do at
//! any time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use event_runtime::{
    Record,
    cli::{Format, Output, exit},
    producer::{OutgoingRecord, ProduceError, Producer},
    reader::{Position, Reader},
};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use shared_events::{header, topics::TOPICS};

use super::{MARK, TargetArgs};

/// How many copies are under way at once.
const BATCH: usize = 500;
/// How long a record may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct DuplicatesArgs {
    /// The events of this topic, repeatable [default: all that carry events]
    #[arg(long = "topic", value_name = "TOPIC", value_parser = event_topic)]
    topics: Vec<String>,

    /// From where on: start, end, an offset, -10 for the last ten records of each partition, @-10m
    #[arg(long, value_name = "POSITION", default_value_t = Position::Start, allow_hyphen_values = true)]
    from: Position,

    /// Only each N-th of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,

    #[command(flatten)]
    target: TargetArgs,
}

/// What is done to one topic.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    /// Events found.
    events: u64,
    /// Of these, those that are delivered again.
    copies: u64,
}

pub async fn run(args: DuplicatesArgs) -> anyhow::Result<u8> {
    let target = args.target.find().await?;
    let wanted = match args.topics.is_empty() {
        true => TOPICS.iter().map(|topic| topic.name.to_owned()).collect(),
        false => args.topics,
    };
    let (kafka, from) = (target.kafka.clone(), args.from);
    let read = move || {
        let mut reader = Reader::open(&kafka, &wanted, from, Timestamp::now())?;
        let mut copies = Vec::new();
        let mut rows: BTreeMap<String, Row> = wanted.iter().map(|topic| (topic.clone(), Row::new(topic))).collect();
        // What comes while this reads is not waited for, so a busy topic ends it as well.
        while let Some(record) = reader.next_kept(Instant::now() + PATIENCE)? {
            let Some(copy) = copy_of(&record) else { continue };
            let row = rows.entry(record.origin.topic.to_string()).or_default();
            row.events += 1;
            if row.events.is_multiple_of(args.every) {
                row.copies += 1;
                copies.push(copy);
            }
        }
        anyhow::ensure!(reader.caught_up(), "the topics were not read in time: nothing for {PATIENCE:?}");
        Ok((rows.into_values().collect::<Vec<_>>(), copies))
    };
    let (rows, copies) = tokio::task::spawn_blocking(read).await??;
    write(&target.output, &rows, target.execute)?;
    let number = copies.len();
    if !target.goes_ahead(&format!("{number} events are delivered a second time")) {
        return Ok(exit::OK);
    }
    let producer = Producer::new(&target.kafka)?;
    publish(&producer, copies).await?;
    target.output.note(format_args!(
        "{number} copies are written. Every consumer is to count them and do nothing: consumer_records_duplicate_total \
         at each service's /metrics, `eventctl lag` for whether they have been read, `eventctl verify` for whether \
         anything happened twice"
    ));
    Ok(exit::OK)
}

/// `record` once more, for the same partition. `None` for what has no event id, and so can be nobody's duplicate, and for
/// what chaos wrote.
pub fn copy_of(record: &Record) -> Option<OutgoingRecord> {
    record.header(header::ID)?;
    if record.header(MARK).is_some() {
        return None;
    }
    let mark = (MARK.into(), Some(b"duplicate".to_vec()));
    Some(OutgoingRecord {
        topic: record.origin.topic.to_string(),
        partition: Some(record.origin.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().cloned().chain([mark]).collect(),
    })
}

/// Writes `copies` in their order.
///
/// # Errors
/// When one is not known to be stored; what was handed over before it may be.
pub async fn publish(producer: &Producer, copies: Vec<OutgoingRecord>) -> Result<(), ProduceError> {
    let mut copies = copies.into_iter().peekable();
    while copies.peek().is_some() {
        // Handed over in their order: those of one key stay in it.
        let batch: Vec<_> = copies.by_ref().take(BATCH).map(|copy| producer.send(copy)).collect();
        join_all(batch).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

impl Row {
    fn new(topic: &str) -> Row {
        Row { topic: topic.to_owned(), ..Row::default() }
    }
}

fn write(output: &Output, rows: &[Row], executed: bool) -> std::io::Result<()> {
    match output.format() {
        Format::Json => output.value(&json!({ "executed": executed, "topics": rows })),
        Format::Jsonl => output.rows(rows),
        Format::Table => {
            let line = |row: &Row| (None, vec![row.topic.clone(), row.events.to_string(), row.copies.to_string()]);
            output.table(&["TOPIC", "EVENTS", "COPIES"], &rows.iter().map(line).collect::<Vec<_>>())
        }
    }
}

/// A topic that carries events.
pub fn event_topic(text: &str) -> Result<String, String> {
    let known = || TOPICS.iter().map(|topic| topic.name).collect::<Vec<_>>().join(", ");
    match TOPICS.iter().any(|topic| topic.name == text) {
        true => Ok(text.to_owned()),
        false => Err(format!("the topics that carry events are: {}", known())),
    }
}
