//! `replay-offsets`: moves a group to other offsets, back to read records again or forward to leave them out.
//!
//! A consumer with members goes on from where it is and would write its own offset over ours, so the group must have none.
//! Nobody can be asked whether that is so (librdkafka's group listing shows live groups of the new protocol as having no
//! members), but the broker itself knows: it refuses a commit from outside while the group has members, in the same step
//! in which it would take it.

mod reprocess;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context, bail};
use event_runtime::{
    Clock,
    cli::{Format, KafkaArgs, Output, Paint, exit},
    config::{KafkaConfig, redact_url},
    inbox,
    reader::{Brokers, Committed, Position},
};
use serde::Serialize;
use serde_json::json;
use shared_events::Group;

use crate::lag;

#[derive(clap::Args)]
pub struct ReplayOffsetsArgs {
    /// Which group, such as email-service
    #[arg(value_name = "GROUP", value_parser = lag::parse_group)]
    group: Group,

    /// Where it is to go on: start, end, an offset N, -N for the last N of each partition, @-1h, @2026-01-31T12:00:00Z
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    to: Position,

    /// Only in this topic, repeatable [default: all that the group reads]
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Have what is read again handled again, also where it was handled before: its inbox rows go
    #[arg(long, requires = "database_url")]
    reprocess: bool,

    /// With --reprocess: where the group's service keeps its data: postgres://… or sqlite:…
    // The environment's value may hold a password, which `--help` would print.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// Do it
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    kafka: KafkaArgs,
}

impl fmt::Debug for ReplayOffsetsArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database_url.as_deref().map(redact_url);
        f.debug_struct("ReplayOffsetsArgs")
            .field("group", &self.group)
            .field("database_url", &database)
            .finish_non_exhaustive()
    }
}

/// Where the group stands in a partition, and where it is to stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    topic: String,
    partition: i32,
    current_offset: Option<i64>,
    new_offset: i64,
    /// Records that are read again.
    again: i64,
    /// Records that are never read.
    left_out: i64,
}

pub async fn run(args: ReplayOffsetsArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let moves = plan(&kafka, &args)?;
    let database = match &args.database_url {
        Some(url) if args.reprocess => Some(reprocess::open(url, args.group).await?),
        _ => None,
    };
    let events = if database.is_some() { reprocess::events(&kafka, &moves)? } else { BTreeSet::new() };
    show(&output, &args, &moves)?;
    let sum = |count: fn(&Move) -> i64| moves.iter().map(count).sum::<i64>();
    let (again, left_out) = (sum(|step| step.again), sum(|step| step.left_out));
    if again > 0 && database.is_some() {
        output.note_painted(
            Some(Paint::Bad),
            format_args!(
                "{again} records are read again, and their {} events are handled again, also those that {} has handled: \
                 its handlers must bear that",
                events.len(),
                args.group.name
            ),
        );
    } else if again > 0 {
        output.note(format_args!(
            "{again} records are read again; those whose events {} has handled are counted as duplicates and have no \
             effect, since its inbox remembers them (--reprocess makes it forget)",
            args.group.name
        ));
    }
    if left_out > 0 {
        let text = format!("{left_out} records that wait will never be handled by {}", args.group.name);
        output.note_painted(Some(Paint::Bad), text);
    }
    if !args.execute {
        output.note("this is the plan; --execute does it, once every instance of the service is stopped");
        return Ok(exit::OK);
    }
    if let Some(database) = database.filter(|_| !events.is_empty()) {
        // Only a group without members may stand where it stands: a running one could handle a duplicate a second time.
        move_group(&kafka, args.group, moves.iter().filter_map(|step| Some((step, step.current_offset?))))?;
        let forgotten = inbox::forget(&database, args.group.name, &events).await;
        let forgotten = forgotten.context("the inbox still remembers some events; run it again")?;
        output.note(format_args!("{}'s inbox has forgotten {forgotten} events", args.group.name));
        database.close().await;
    }
    move_group(&kafka, args.group, moves.iter().map(|step| (step, step.new_offset)))?;
    output.note(format_args!("{} stands there now; start it again", args.group.name));
    Ok(exit::OK)
}

fn plan(kafka: &KafkaConfig, args: &ReplayOffsetsArgs) -> anyhow::Result<Vec<Move>> {
    let group = args.group;
    for topic in &args.topic {
        if !group.topics.iter().any(|known| known.name == topic) {
            let known: Vec<_> = group.topics.iter().map(|topic| topic.name).collect();
            bail!("{} does not read {topic}; it reads {}", group.name, known.join(", "));
        }
    }
    let brokers = Brokers::new(kafka, Some(group.name))?;
    let existing = brokers.topics()?;
    let mut extents = BTreeMap::new();
    for topic in group.topics.iter().map(|topic| topic.name) {
        if !args.topic.is_empty() && !args.topic.iter().any(|wanted| wanted == topic) {
            continue;
        }
        for partition in 0..existing.get(topic).copied().unwrap_or(0) {
            extents.insert((topic.to_owned(), partition), brokers.watermarks(topic, partition)?);
        }
    }
    let new = brokers.offsets_at(&extents, args.to, Clock::system().now())?;
    let current = brokers.committed(extents.keys().cloned())?;
    let moves = new.into_iter().map(|(partition, new_offset)| {
        let low = extents.get(&partition).map_or(0, |(low, _)| *low);
        Move::new(current.get(&partition).copied().flatten(), low, new_offset, partition)
    });
    Ok(moves.collect())
}

impl Move {
    /// What is before `low` is deleted: it is neither read again nor left out.
    fn new(current: Option<i64>, low: i64, new: i64, (topic, partition): (String, i32)) -> Move {
        let stands = current.unwrap_or(low).max(low);
        Move {
            topic,
            partition,
            current_offset: current,
            new_offset: new,
            again: (stands - new).max(0),
            left_out: (new - stands).max(0),
        }
    }
}

fn move_group<'a>(kafka: &KafkaConfig, group: Group, to: impl Iterator<Item = (&'a Move, i64)>) -> anyhow::Result<()> {
    let offsets =
        to.map(|(step, offset)| ((step.topic.clone(), step.partition), Committed { offset, metadata: String::new() }));
    Brokers::new(kafka, Some(group.name))?.commit(&offsets.collect()).with_context(|| {
        format!(
            "{0} does not move; stop every instance of {0} first, a killed one is a member for 10 s more",
            group.name
        )
    })
}

fn show(output: &Output, args: &ReplayOffsetsArgs, moves: &[Move]) -> anyhow::Result<()> {
    match output.format() {
        Format::Table => {
            let rows: Vec<_> = moves
                .iter()
                .map(|step| {
                    let cells = vec![
                        args.group.name.to_owned(),
                        step.topic.clone(),
                        step.partition.to_string(),
                        step.current_offset.map_or("-".to_owned(), |offset| offset.to_string()),
                        step.new_offset.to_string(),
                        step.again.to_string(),
                        step.left_out.to_string(),
                    ];
                    ((step.left_out > 0).then_some(Paint::Bad), cells)
                })
                .collect();
            output.table(
                &["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", "READ-AGAIN", "LEFT-OUT"],
                &rows,
            )?;
        }
        Format::Json => {
            output.value(&json!({ "group": args.group.name, "executed": args.execute, "partitions": moves }))?;
        }
        Format::Jsonl => output.rows(moves)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_what_is_read_again_and_what_is_left_out() {
        let table = [
            // committed, low, new, again, left out
            (Some(10), 0, 4, 6, 0),
            (Some(10), 0, 10, 0, 0),
            (Some(10), 0, 15, 0, 5),
            (None, 3, 3, 0, 0),
            (None, 3, 8, 0, 5),
            (Some(1), 3, 8, 0, 5),
        ];
        for (committed, low, new, again, left_out) in table {
            let step = Move::new(committed, low, new, ("t".to_owned(), 0));
            assert_eq!((step.again, step.left_out), (again, left_out), "{committed:?} from {low} to {new}");
        }
    }
}
