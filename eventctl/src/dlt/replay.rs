//! `dlt replay`: publishes the records of dead letters once more, for the groups that failed alone.
//!
//! A replay keeps key, value, event id and headers and says which replay it is. The same replay may be published twice,
//! after a kill or by a repeated selection: the group's inbox lets one through. So acknowledgements come first and the
//! group's offsets after, and nothing has to be undone.
//!
//! What leaves quarantine has a place of its own in that group's offsets, as its letters stand in a topic of their own.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use event_runtime::{
    Clock, Origin, Record,
    cli::{Format, KafkaArgs, Output, Paint, exit},
    config::KafkaConfig,
    consumer::dead_letter::DeadLetter,
    producer::{OutgoingRecord, ProduceError, Producer},
    reader::{Brokers, Reader},
    topics::{TopicSpec, ensure},
};
use futures_util::future::join_all;
use serde_json::json;
use shared_events::{header, topics::quarantine_topic};
use tokio::time::Instant;

use super::{
    edit,
    letters::{Letters, REPLAY_GROUP, next, record_at},
    plan::{Action, Kind, Plan, Rules},
    selection::Selection,
};
use crate::topics::declared;

/// How many replays may be on their way at once, and are repeated at most after a kill.
const BATCH: usize = 500;

/// How often a long run says how far it is.
const MENTION_EVERY: Duration = Duration::from_secs(5);

/// What quarantine keeps of topics that nobody has declared.
const KEPT: Duration = Duration::from_secs(28 * 24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    selection: Selection,

    /// Do it
    #[arg(long)]
    execute: bool,

    /// At most so many a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// What was replayed so often already goes to the topic TOPIC.GROUP.quarantine instead; no limit for --quarantined
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_replays: u32,

    /// Also what was replayed before; without an inbox, it is handled again
    #[arg(long)]
    again: bool,

    /// Another topic than the original one; the key decides on the partition
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,

    /// Another event type than the original one
    #[arg(long, value_name = "EVENT_TYPE")]
    r#type: Option<String>,

    /// Another key than the original one, for records whose key is not their event's; it decides on the partition
    #[arg(long, value_name = "KEY")]
    with_key: Option<String>,

    /// Open the value in $VISUAL or $EDITOR first; for one letter
    #[arg(long, conflicts_with = "value_file")]
    edit: bool,

    /// Another value than the original one; for one letter
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,

    #[command(flatten)]
    kafka: KafkaArgs,
}

pub async fn run(args: &ReplayArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let now = Clock::system().now();
    let selection = &args.selection;
    let letters = Letters::read(&output, &kafka, &selection.topics, |record, dead| selection.fits(record, dead, now))?;
    if !selection.ids.is_empty() && letters.letters.iter().all(|letter| !letter.fits) {
        anyhow::bail!(
            "no dead letter has that id and all else that was asked for; eventctl dlt list counts those there are"
        );
    }
    let rules = Rules {
        max_replays: (!selection.topics.quarantined).then_some(args.max_replays),
        again: args.again,
        to: args.to.clone(),
        now,
    };
    let plan = Plan::new(&letters, &rules);
    if let Some(to) = &args.to {
        let existing = Brokers::new(&kafka, None)?.topics()?;
        anyhow::ensure!(existing.contains_key(to), "--to: topic {to:?} does not exist");
    }
    if (args.edit || args.value_file.is_some()) && plan.steps.len() != 1 {
        output
            .note(format_args!("error: --edit and --value-file are for one letter; {} are selected", plan.steps.len()));
        return Ok(exit::USAGE);
    }
    if plan.forgotten > 0 {
        let warning = "older than inboxes remember: what was handled after all is handled again";
        output.note_painted(Some(Paint::Open), format_args!("warning: {} are {warning}", plan.forgotten));
    }
    let counts = plan.counts.clone();
    let planned = plan.steps.len() as u64;
    let done = match args.execute {
        true => execute(&output, &kafka, args, plan).await?,
        false => plan.kinds(),
    };
    write(&output, args.execute, &done, &json!(counts))?;
    let mut others = vec![];
    for (count, what) in [
        (counts.not_selected, "wait and were not selected"),
        (counts.replayed_before, "were replayed before (--again takes them too)"),
        (counts.superseded, "have a later letter of the same event"),
        (counts.unreadable, "are no dead letters"),
    ] {
        if count > 0 {
            others.push(format!("{count} {what}"));
        }
    }
    let number: u64 = done.values().sum();
    let begin = match args.execute {
        true => format!("{number} of {planned} done"),
        false if number == 0 => "nothing to do".to_owned(),
        false => format!("this is the plan for {number}; --execute does it"),
    };
    output.note([vec![begin], others].concat().join("; "));
    Ok(if args.execute && number < planned { exit::FAILURE } else { exit::OK })
}

fn write(
    output: &Output,
    executed: bool,
    kinds: &BTreeMap<Kind, u64>,
    left_out: &serde_json::Value,
) -> std::io::Result<()> {
    let row = |(kind, letters): (&Kind, &u64)| {
        json!({
            "topic": kind.topic, "group": kind.group, "errorClass": kind.error_class,
            "action": kind.action, "to": kind.to, "letters": letters,
        })
    };
    let rows: Vec<_> = kinds.iter().map(row).collect();
    match output.format() {
        Format::Json => {
            return output.value(&json!({ "executed": executed, "actions": rows, "leftOut": left_out }));
        }
        Format::Jsonl => return output.rows(&rows),
        Format::Table if kinds.is_empty() => return Ok(()),
        Format::Table => {}
    }
    let lines: Vec<_> = kinds
        .iter()
        .map(|(kind, letters)| {
            let (paint, action) = match kind.action {
                Action::Replay => (None, "replay"),
                Action::Quarantine => (Some(Paint::Open), "quarantine"),
            };
            let cells = vec![
                kind.topic.clone(),
                kind.group.clone(),
                kind.error_class.clone(),
                letters.to_string(),
                action.to_owned(),
                kind.to.clone(),
            ];
            (paint, cells)
        })
        .collect();
    output.table(&["TOPIC", "GROUP", "ERROR CLASS", "LETTERS", "ACTION", "TO"], &lines)
}

/// A letter on its way.
struct Step {
    letter: Record,
    dead: DeadLetter,
    kind: Kind,
    /// The value that is replayed. A letter may have none because its record is too large for one.
    value: Option<Vec<u8>>,
}

/// Carries the plan out; returns what was done.
async fn execute(
    output: &Output,
    kafka: &KafkaConfig,
    args: &ReplayArgs,
    mut plan: Plan,
) -> anyhow::Result<BTreeMap<Kind, u64>> {
    ensure_quarantines(kafka, &plan).await?;
    let group = Brokers::new(kafka, Some(REPLAY_GROUP))?;
    commit(&group, &mut plan)?;
    let mut done = BTreeMap::new();
    if plan.steps.is_empty() {
        return Ok(done);
    }
    let producer = Producer::new(kafka)?;
    let mut reader = Reader::open_at(kafka, &plan.begins())?;
    let mut pace = Pace::new(args.rate);
    let mut mentioned = Instant::now();
    loop {
        let mut steps = take(output, kafka, &mut reader, &plan, pace.batch())?;
        if steps.is_empty() {
            return Ok(done);
        }
        if let Some(step) = steps.first_mut() {
            step.value = match &args.value_file {
                Some(file) => Some(edit::from_file(file)?),
                None if args.edit => Some(edit::by_hand(step.value.as_deref().unwrap_or_default())?),
                None => step.value.take(),
            };
        }
        // Handed over in their order: records of one key stay in it.
        let sent = join_all(steps.iter().map(|step| publish(&producer, step, args))).await;
        let number = steps.len();
        let mut failure = None;
        for (step, sent) in steps.into_iter().zip(sent) {
            match sent {
                Ok(kind) => {
                    plan.progress.settle(&step.letter.origin);
                    *done.entry(kind).or_insert(0) += 1;
                }
                Err(error) => failure = failure.or(Some((step.letter.origin, error))),
            }
        }
        commit(&group, &mut plan)?;
        if let Some((place, error)) = failure {
            let count: u64 = done.values().sum();
            let context = format!("stopped after {count} at {place}; the same command goes on from here");
            return Err(error).context(context);
        }
        pace.wait(number).await;
        if mentioned.elapsed() >= MENTION_EVERY {
            mentioned = Instant::now();
            output.note(format_args!("{} of {}", done.values().sum::<u64>(), plan.steps.len()));
        }
    }
}

fn commit(group: &Brokers, plan: &mut Plan) -> anyhow::Result<()> {
    let moved = plan.progress.moved();
    match moved.is_empty() {
        true => Ok(()),
        false => Ok(group.commit(&moved)?),
    }
}

/// The next letters that something is done with, at most `count`; none when all have been read.
fn take(
    output: &Output,
    kafka: &KafkaConfig,
    reader: &mut Reader,
    plan: &Plan,
    count: usize,
) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    while steps.len() < count {
        let Some(letter) = next(output, reader)? else { break };
        let Some(kind) = plan.steps.get(&letter.origin) else { continue };
        let Some(dead) = DeadLetter::read(&letter) else { continue };
        let (mut kind, mut value) = (kind.clone(), letter.value.clone());
        if dead.value_omitted && kind.action == Action::Replay {
            match record_at(output, kafka, &dead.original)? {
                Some(record) => value = record.value,
                // Without its value it would be something else.
                None => {
                    output
                        .note(format_args!("{} is gone, and its letter {} has no value", dead.original, letter.origin));
                    kind = kind.into_quarantine();
                }
            }
        }
        // From quarantine there is no further way down.
        if kind.to == *letter.origin.topic {
            continue;
        }
        steps.push(Step { kind, dead, letter, value });
    }
    Ok(steps)
}

/// Returns what has been done in the end: what is too large with a replay's headers goes to quarantine.
async fn publish(producer: &Producer, step: &Step, args: &ReplayArgs) -> Result<Kind, ProduceError> {
    let quarantine = || OutgoingRecord {
        topic: quarantine_topic(&step.dead.original.topic, &step.dead.group),
        partition: None,
        key: step.letter.key.clone(),
        value: step.letter.value.clone(),
        headers: step.letter.headers.clone(),
    };
    let kind = step.kind.clone();
    let sent = match kind.action {
        Action::Quarantine => producer.send(quarantine()).await,
        Action::Replay => match producer.send(replay(step, args)).await {
            Err(ProduceError::TooLarge { .. }) if kind.clone().into_quarantine().to != *step.letter.origin.topic => {
                let letter = quarantine();
                return producer.send(letter).await.map(|_| kind.into_quarantine());
            }
            sent => sent,
        },
    };
    sent.map(|_: Origin| kind)
}

fn replay(step: &Step, args: &ReplayArgs) -> OutgoingRecord {
    let mut record = step.dead.replay(&step.letter);
    record.value.clone_from(&step.value);
    if let Some(to) = &args.to {
        (record.topic, record.partition) = (to.clone(), None);
    }
    if let Some(event_type) = &args.r#type {
        record.headers.retain(|(name, _)| name != header::TYPE);
        record.headers.push((header::TYPE.into(), Some(event_type.clone().into_bytes())));
    }
    if let Some(key) = &args.with_key {
        (record.key, record.partition) = (Some(key.clone().into_bytes()), None);
    }
    record
}

async fn ensure_quarantines(kafka: &KafkaConfig, plan: &Plan) -> anyhow::Result<()> {
    let quarantined = plan.steps.values().filter(|kind| kind.action == Action::Quarantine);
    let names: HashSet<&str> = quarantined.map(|kind| kind.to.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let declared = declared();
    let spec = |name: &str| {
        let known = declared.iter().find(|topic| topic.name == name).cloned();
        known.unwrap_or_else(|| TopicSpec { name: name.to_owned(), partitions: 1, retention: KEPT })
    };
    ensure(kafka, &names.into_iter().map(spec).collect::<Vec<_>>()).await?;
    Ok(())
}

/// Keeps to a rate by sending a tenth of a second's worth at a time.
struct Pace {
    rate: Option<u32>,
    begun: Instant,
    sent: usize,
}

impl Pace {
    fn new(rate: Option<u32>) -> Pace {
        Pace { rate, begun: Instant::now(), sent: 0 }
    }

    fn batch(&self) -> usize {
        self.rate.map_or(BATCH, |rate| (rate as usize / 10).clamp(1, BATCH))
    }

    /// Waits until `number` more are as old as the rate says.
    async fn wait(&mut self, number: usize) {
        self.sent += number;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
            tokio::time::sleep_until(self.begun + due).await;
        }
    }
}
