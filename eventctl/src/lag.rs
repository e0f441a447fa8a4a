//! `lag`: how many records each consumer group has not handled yet, from committed offsets and watermarks, and for how long
//! the first of them has waited. The brokers' own list of groups is not asked: librdkafka shows live groups of the new
//! protocol as dead.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use event_runtime::{
    Clock,
    cli::{Format, KafkaArgs, Output, Paint, exit, with_causes},
    config::KafkaConfig,
    reader::{self, Brokers, ReadError},
};
use jiff::Timestamp;
use serde::Serialize;
use shared_events::{Group, topics::GROUPS};

use crate::age::age;

#[derive(Debug, clap::Args)]
pub struct LagArgs {
    /// Only this group, such as payment-service [default: all that are declared]
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    group: Option<Group>,

    /// End with 1 when more records than this wait in total
    #[arg(long, value_name = "N")]
    max: Option<i64>,

    /// Show it again every two seconds, until ctrl-c
    #[arg(long, conflicts_with = "max")]
    watch: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Where a group stands in one partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    /// The offset it handles next; none where it has committed nothing yet.
    pub current_offset: Option<i64>,
    pub log_end_offset: i64,
    pub lag: i64,
    /// When the first record that waits was written; none where none waits, or where it was not looked up.
    pub oldest: Option<Timestamp>,
    /// For how many seconds that record has waited.
    pub oldest_seconds: Option<f64>,
}

const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long the first records of all partitions of a group may take to come: without them the lag is still worth showing.
const FIRST_RECORDS_WITHIN: Duration = Duration::from_secs(5);
/// Homes the cursor and clears the screen.
const REDRAW: &str = "\u{1b}[H\u{1b}[2J";

pub fn run(args: &LagArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let groups = args.group.map_or(GROUPS.to_vec(), |group| vec![group]);
    if args.watch {
        return watch(&output, &kafka, &groups);
    }
    let rows = look(&kafka, &groups)?;
    show(&output, &rows)?;
    let total = total(&rows);
    match args.max {
        Some(max) if total > max => {
            output.note(format_args!("{total} records wait, more than {max}"));
            Ok(exit::FAILURE)
        }
        _ => Ok(exit::OK),
    }
}

/// Until ctrl-c, or until nobody reads any more.
fn watch(output: &Output, kafka: &KafkaConfig, groups: &[Group]) -> anyhow::Result<u8> {
    loop {
        let begin = Instant::now();
        match look(kafka, groups) {
            Ok(rows) => {
                if output.is_table() && io::stdout().is_terminal() {
                    output.line(REDRAW)?;
                }
                show(output, &rows)?;
            }
            // Whoever watches wants to see the brokers come back.
            Err(error) => output.note(with_causes(&error)),
        }
        std::thread::sleep(WATCH_EVERY.saturating_sub(begin.elapsed()));
    }
}

fn look(kafka: &KafkaConfig, groups: &[Group]) -> Result<Vec<Lag>, ReadError> {
    let mut rows = of_groups(kafka, groups)?;
    for group in groups {
        let waiting = rows.iter_mut().filter(|row| row.group == group.name && row.lag > 0);
        date(kafka, waiting.collect())?;
    }
    Ok(rows)
}

/// Looks up how old the first record that waits is, for rows of one group.
fn date(kafka: &KafkaConfig, rows: Vec<&mut Lag>) -> Result<(), ReadError> {
    if rows.is_empty() {
        return Ok(());
    }
    let partition = |row: &Lag| (row.topic.clone(), row.partition);
    let offsets = rows.iter().map(|row| (partition(row), row.log_end_offset - row.lag)).collect();
    let written = reader::first_written(kafka, &offsets, FIRST_RECORDS_WITHIN)?;
    let now = Clock::system().now();
    for row in rows {
        row.oldest = written.get(&partition(row)).copied().flatten();
        row.oldest_seconds = row.oldest.map(|time| now.duration_since(time).as_secs_f64().max(0.0));
    }
    Ok(())
}

/// The lag of `groups` on those of their topics that exist.
pub fn of_groups(kafka: &KafkaConfig, groups: &[Group]) -> Result<Vec<Lag>, ReadError> {
    let brokers = Brokers::new(kafka, None)?;
    let existing = brokers.topics()?;
    let mut watermarks: BTreeMap<(String, i32), (i64, i64)> = BTreeMap::new();
    let mut rows = Vec::new();
    for group in groups {
        let names = group.topics.iter().map(|topic| topic.name);
        let partitions: Vec<(String, i32)> = names
            .flat_map(|name| {
                (0..existing.get(name).copied().unwrap_or(0)).map(|partition| (name.to_owned(), partition))
            })
            .collect();
        if partitions.is_empty() {
            continue;
        }
        for partition in &partitions {
            if !watermarks.contains_key(partition) {
                watermarks.insert(partition.clone(), brokers.watermarks(&partition.0, partition.1)?);
            }
        }
        let committed = Brokers::new(kafka, Some(group.name))?.committed(partitions)?;
        rows.extend(committed.into_iter().map(|(partition, current)| {
            let (low, high) = watermarks.get(&partition).copied().unwrap_or_default();
            Lag::new(group.name, partition, current, low, high)
        }));
    }
    Ok(rows)
}

impl Lag {
    /// What is before `low` is deleted: nobody waits for it any more.
    fn new(group: &str, (topic, partition): (String, i32), current: Option<i64>, low: i64, high: i64) -> Lag {
        let next = current.unwrap_or(low).max(low);
        Lag {
            group: group.to_owned(),
            topic,
            partition,
            current_offset: current,
            log_end_offset: high,
            lag: (high - next).max(0),
            oldest: None,
            oldest_seconds: None,
        }
    }
}

fn total(rows: &[Lag]) -> i64 {
    rows.iter().map(|row| row.lag).sum()
}

fn show(output: &Output, rows: &[Lag]) -> io::Result<()> {
    match output.format() {
        Format::Table => table(output, rows),
        Format::Json => output.value(&serde_json::json!({ "partitions": rows, "total": total(rows) })),
        Format::Jsonl => output.rows(rows),
    }
}

fn table(output: &Output, rows: &[Lag]) -> io::Result<()> {
    let now = Clock::system().now();
    let waited = |oldest: Option<Timestamp>| oldest.map_or("-".to_owned(), |oldest| age(oldest, now));
    let mut lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells = vec![
                row.group.clone(),
                row.topic.clone(),
                row.partition.to_string(),
                row.current_offset.map_or("-".to_owned(), |offset| offset.to_string()),
                row.log_end_offset.to_string(),
                row.lag.to_string(),
                waited(row.oldest),
            ];
            ((row.lag > 0).then_some(Paint::Open), cells)
        })
        .collect();
    let mut sum = vec![String::new(); 5];
    sum[0] = "TOTAL".to_owned();
    sum.push(total(rows).to_string());
    sum.push(waited(rows.iter().filter_map(|row| row.oldest).min()));
    lines.push((Some(Paint::Strong), sum));
    output.table(&["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "OLDEST"], &lines)
}

pub fn parse_group(text: &str) -> Result<Group, String> {
    let declared = || GROUPS.iter().map(|group| group.name).collect::<Vec<_>>().join(", ");
    GROUPS.iter().find(|group| group.name == text).copied().ok_or_else(|| format!("the groups are: {}", declared()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_is_kept_and_not_handled() {
        let table = [
            // committed, low, high, lag
            (Some(10), 0, 10, 0),
            (Some(4), 0, 10, 6),
            (None, 0, 10, 10),
            (None, 3, 10, 7),
            (Some(1), 3, 10, 7),
            // A topic made anew has a shorter log than the group remembers.
            (Some(20), 0, 10, 0),
        ];
        for (committed, low, high, expected) in table {
            let lag = Lag::new("g", ("t".to_owned(), 0), committed, low, high).lag;
            assert_eq!(lag, expected, "{committed:?} of {low}..{high}");
        }
    }
}
