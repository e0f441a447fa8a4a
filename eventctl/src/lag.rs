//! `lag`: how many records each consumer group has not handled yet, from committed offsets and watermarks. The brokers'
//! own list of groups is not asked: librdkafka shows live groups of the new protocol as dead.

use std::collections::BTreeMap;

use event_runtime::{
    cli::{BrokerArgs, Format, Output, Paint, exit},
    config::{KafkaConfig, discovery::Discovery},
    reader::{Brokers, ReadError},
};
use serde::Serialize;
use shared_events::{Group, topics::GROUPS};

#[derive(Debug, clap::Args)]
pub struct LagArgs {
    /// Only this group, such as payment-service [default: all that are declared]
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    group: Option<Group>,

    /// End with 1 when more records than this wait in total
    #[arg(long, value_name = "N")]
    max: Option<i64>,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    brokers: BrokerArgs,
}

/// Where a group stands in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    /// The offset it handles next; none where it has committed nothing yet.
    pub current_offset: Option<i64>,
    pub log_end_offset: i64,
    pub lag: i64,
}

pub fn run(args: &LagArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let kafka = args.brokers.find(&output, &Discovery::from_process());
    let groups = args.group.map_or(GROUPS.to_vec(), |group| vec![group]);
    let rows = of_groups(&kafka, &groups)?;
    let total: i64 = rows.iter().map(|row| row.lag).sum();
    match output.format() {
        Format::Table => write(&output, &rows, total)?,
        Format::Json => output.value(&serde_json::json!({ "partitions": rows, "total": total }))?,
        Format::Jsonl => output.rows(&rows)?,
    }
    match args.max {
        Some(max) if total > max => {
            output.note(format_args!("{total} records wait, more than {max}"));
            Ok(exit::FAILURE)
        }
        _ => Ok(exit::OK),
    }
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
        let lag = (high - current.unwrap_or(low).max(low)).max(0);
        Lag { group: group.to_owned(), topic, partition, current_offset: current, log_end_offset: high, lag }
    }
}

fn write(output: &Output, rows: &[Lag], total: i64) -> std::io::Result<()> {
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
            ];
            ((row.lag > 0).then_some(Paint::Open), cells)
        })
        .collect();
    let mut sum = vec![String::new(); 5];
    sum[0] = "TOTAL".to_owned();
    sum.push(total.to_string());
    lines.push((Some(Paint::Strong), sum));
    output.table(&["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"], &lines)
}

fn parse_group(text: &str) -> Result<Group, String> {
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
