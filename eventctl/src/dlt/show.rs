//! `dlt show`.

use std::collections::BTreeMap;

use event_runtime::{
    Clock, Origin, Record,
    cli::{Format, KafkaArgs, Output, Paint, exit, one_line},
    config::KafkaConfig,
    consumer::dead_letter::{DeadLetter, header_text},
    telemetry::trace::trace_id,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared_events::header;

use super::letters::{Letters, State, TopicArgs, record_at};
use crate::age::age;

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The event's id, or the place of the letter, such as orders.payment-service.dlt:3:42
    #[arg(value_name = "ID|TOPIC:PARTITION:OFFSET")]
    target: String,

    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Everything about a dead letter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    letter: Place,
    state: State,
    original: Place,
    group: String,
    error_class: String,
    error: String,
    attempts: u32,
    failed_at: Option<Timestamp>,
    replay_count: u32,
    event_id: Option<String>,
    event_type: Option<String>,
    trace_id: Option<String>,
    correlation_id: Option<String>,
    key: Option<String>,
    headers: BTreeMap<String, Option<String>>,
    /// The value: as it is when it is JSON, else as text.
    data: Value,
}

#[derive(Debug, Serialize)]
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

pub fn run(args: &ShowArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let shown = match place(&args.target) {
        Some(place) => at(&output, &kafka, &place)?,
        None => of_event(&output, &kafka, &args.target)?,
    };
    if shown.is_empty() {
        anyhow::bail!("no dead letter {:?}; eventctl dlt list counts those there are", args.target);
    }
    match output.format() {
        Format::Json | Format::Jsonl => output.rows(&shown)?,
        Format::Table => {
            for (number, letter) in shown.iter().enumerate() {
                if number > 0 {
                    output.line("")?;
                }
                letter.write(&output, Clock::system().now())?;
            }
        }
    }
    Ok(exit::OK)
}

/// `topic:partition:offset`
fn place(text: &str) -> Option<Origin> {
    let mut parts = text.rsplitn(3, ':');
    let (offset, partition, topic) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Origin { topic: topic.into(), partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

fn at(output: &Output, kafka: &KafkaConfig, place: &Origin) -> anyhow::Result<Vec<Shown>> {
    let Some(topics) = TopicArgs::only(&place.topic) else {
        anyhow::bail!("{} is no topic of dead letters: eventctl tail shows it", place.topic);
    };
    let Some(record) = record_at(output, kafka, place)? else { return Ok(Vec::new()) };
    let Some(dead) = DeadLetter::read(&record) else {
        anyhow::bail!("{place} is no dead letter: eventctl tail shows it");
    };
    // What stands there says nothing of what came after it.
    let all = Letters::read(output, kafka, &topics, |_, _| false)?;
    let known = all.letters.iter().find(|letter| letter.place == *place);
    Ok(vec![Shown::new(record, dead, known.map_or(State::Waiting, |letter| letter.state))])
}

fn of_event(output: &Output, kafka: &KafkaConfig, id: &str) -> anyhow::Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for quarantined in [false, true] {
        let mut records = BTreeMap::new();
        let topics = TopicArgs { quarantined, ..TopicArgs::default() };
        let letters = Letters::read(output, kafka, &topics, |record, _| {
            let fits = record.header(header::ID) == Some(id.as_bytes());
            if fits {
                let place = &record.origin;
                records.insert((place.topic.clone(), place.partition, place.offset), record.clone());
            }
            fits
        })?;
        let fitting = letters.letters.into_iter().filter(|letter| letter.fits);
        shown.extend(fitting.filter_map(|letter| {
            let place = letter.place;
            let record = records.remove(&(place.topic, place.partition, place.offset))?;
            Some(Shown::new(record, letter.dead, letter.state))
        }));
    }
    Ok(shown)
}

impl Shown {
    fn new(record: Record, dead: DeadLetter, state: State) -> Shown {
        let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_deref().map(|value| header_text(name, value))));
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Shown {
            state,
            original: dead.original.into(),
            group: dead.group,
            error_class: dead.error_class,
            error: dead.error,
            attempts: dead.attempts,
            failed_at: dead.failed_at,
            replay_count: dead.replay_count,
            event_id: text(header::ID),
            event_type: text(header::TYPE),
            trace_id: text(header::TRACE_PARENT).and_then(|parent| trace_id(&parent)),
            correlation_id: text(header::CORRELATION_ID),
            key: record.key.as_deref().map(lossy),
            headers: headers.collect(),
            data: record.value.as_deref().map_or(Value::Null, |value| {
                serde_json::from_slice(value).unwrap_or_else(|_| Value::String(lossy(value)))
            }),
            letter: record.origin.into(),
        }
    }

    fn write(&self, output: &Output, now: Timestamp) -> std::io::Result<()> {
        let line = |name: &str, value: &str| {
            output.line(format_args!("{name:<15} {}", one_line(value)).to_string().trim_end())
        };
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let state = match self.state {
            State::Waiting => "waiting",
            State::Replayed => "replayed",
            State::Superseded => "superseded: there is a later letter of the event",
        };
        let attempts = if self.attempts == 1 { "attempt" } else { "attempts" };
        let failed = self.failed_at.map_or("-".to_owned(), |at| format!("{at}, {} ago", age(at, now)));
        output.line(output.painted(Some(Paint::Strong), format_args!("dead letter     {}", self.letter)))?;
        line("state", state)?;
        line("event", &format!("{} {}", dash(&self.event_type), dash(&self.event_id)))?;
        line("key", &dash(&self.key))?;
        line("record was at", &self.original.to_string())?;
        line("failed in", &format!("{}, after {} {attempts}", self.group, self.attempts))?;
        line("failed at", &failed)?;
        line("error class", &self.error_class)?;
        output.line(output.painted(Some(Paint::Bad), format_args!("error           {}", one_line(&self.error))))?;
        line("replays", &self.replay_count.to_string())?;
        line("trace id", &dash(&self.trace_id))?;
        line("correlation id", &dash(&self.correlation_id))?;
        output.line("headers")?;
        for (name, value) in &self.headers {
            output.line(format_args!(
                "  {}: {}",
                one_line(name),
                one_line(value.as_deref().unwrap_or("(no value)"))
            ))?;
        }
        output.line("value")?;
        match &self.data {
            Value::Null if self.headers.contains_key("dlt-value-omitted") => {
                output.line(format_args!("  too large for a letter; the record stands at {}", self.original))
            }
            Value::Null => output.line("  none"),
            Value::String(text) => output.line(format_args!("  {}", one_line(text))),
            json => {
                serde_json::to_string_pretty(json)?.lines().try_for_each(|text| output.line(format_args!("  {text}")))
            }
        }
    }
}

impl From<Origin> for Place {
    fn from(origin: Origin) -> Place {
        Place { topic: origin.topic.to_string(), partition: origin.partition, offset: origin.offset }
    }
}

impl std::fmt::Display for Place {
    /// As `dlt show` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_an_id() {
        let origin = place("orders.payment-service.dlt:3:42").unwrap();
        assert_eq!(origin.to_string(), "orders.payment-service.dlt[3]@42");
        for id in ["018f2d0e-0000-7000-8000-000000000001", "orders.dlt", "a:b:c", "orders:3"] {
            assert!(place(id).is_none(), "{id}");
        }
    }
}
