//! Live events: one line each, first what is there already in the order of time, then what comes.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared_events::header;

use super::{Output, Paint, output::one_line};
use crate::{
    Record,
    config::KafkaConfig,
    consumer::dead_letter,
    reader::{Position, ReadError, Reader},
};

/// How many records of the past are put in the order of time. Of a longer past, each so many are.
const SORTED_AT_ONCE: usize = 20_000;

/// How much of an event's data a line shows.
const SHOWN_DATA: usize = 120;

/// How often a connection that suffers is mentioned.
const MENTION_EVERY: Duration = Duration::from_secs(10);

/// What is read, and when reading ends.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadArgs {
    /// Where to begin: start, end, an offset N, -N for the last N of each partition, @-10m, @2026-01-31T12:00:00Z
    /// [default: end; start with --exit]
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub from: Option<Position>,

    /// End after this many events
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,

    /// End where the topics end now, instead of waiting for more
    #[arg(long)]
    pub exit: bool,
}

/// Shows the events of `topics` that `keep` wants, until `args` say that it is enough.
///
/// # Errors
/// When no broker answers, a topic does not exist, or stdout cannot be written.
pub fn follow(
    output: &Output,
    kafka: &KafkaConfig,
    topics: &[String],
    args: &ReadArgs,
    now: Timestamp,
    keep: impl Fn(&Record) -> bool,
) -> anyhow::Result<()> {
    let from = args.from.unwrap_or(if args.exit { Position::Start } else { Position::End });
    let mut reader = Reader::open(kafka, topics, from, now)?;
    let mut lines = Lines { output, left: args.count.unwrap_or(u64::MAX), header: output.is_table() };
    let mut past = Vec::new();
    let mut mentioned: Option<Instant> = None;
    while lines.left > 0 {
        let caught_up = reader.caught_up();
        if caught_up || past.len() >= SORTED_AT_ONCE {
            past.sort_by_key(|record: &Record| (record.timestamp, record.origin.offset));
            past.drain(..).try_for_each(|record| lines.show(&record))?;
        }
        if caught_up && args.exit {
            break;
        }
        match reader.next(Duration::from_millis(200)) {
            Ok(Some(record)) if !keep(&record) => {}
            Ok(Some(record)) if caught_up => lines.show(&record)?,
            Ok(Some(record)) => past.push(record),
            Ok(None) => {}
            Err(error @ ReadError::Disturbed(_)) => {
                if mentioned.is_none_or(|at| at.elapsed() >= MENTION_EVERY) {
                    mentioned = Some(Instant::now());
                    output.note(format_args!("{:#}", anyhow::Error::new(error)));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Lines<'a> {
    output: &'a Output,
    left: u64,
    header: bool,
}

impl Lines<'_> {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let event = EventLine::of(record);
        if !self.output.is_table() {
            return self.output.value(&event);
        }
        if std::mem::take(&mut self.header) {
            let header = columns("TIME (UTC)", "TOPIC[PARTITION]@OFFSET", "TYPE", "KEY", "SOURCE", "DATA");
            self.output.line(self.output.painted(Some(Paint::Strong), header))?;
        }
        self.output.line(self.output.painted(event.paint(), event.to_line()))
    }
}

/// A record as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventLine<'a> {
    time: Option<Timestamp>,
    topic: &'a str,
    partition: i32,
    offset: i64,
    r#type: Option<String>,
    key: Option<String>,
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
    headers: BTreeMap<&'a str, Option<String>>,
    /// The value: as it is when it is JSON, else as text.
    data: Value,
}

/// What the headers of a dead letter say.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter {
    group: Option<String>,
    error: Option<String>,
}

impl<'a> EventLine<'a> {
    fn of(record: &'a Record) -> EventLine<'a> {
        let text = |name| record.header(name).map(lossy);
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| (&**name, value.as_deref().map(|value| dead_letter::header_text(name, value))));
        let dead_letter = record.origin.topic.ends_with(".dlt").then(|| DeadLetter {
            group: text(dead_letter::header::ORIGINAL_CONSUMER_GROUP),
            error: text(dead_letter::header::EXCEPTION_MESSAGE),
        });
        EventLine {
            time: record.timestamp.or_else(|| record.envelope().ok().map(|envelope| envelope.time)),
            topic: &record.origin.topic,
            partition: record.origin.partition,
            offset: record.origin.offset,
            r#type: text(header::TYPE),
            key: record.key.as_deref().map(lossy),
            source: text(header::SOURCE),
            dead_letter,
            headers: headers.collect(),
            data: record.value.as_deref().map_or(Value::Null, |value| {
                serde_json::from_slice(value).unwrap_or_else(|_| Value::String(lossy(value)))
            }),
        }
    }

    fn paint(&self) -> Option<Paint> {
        if self.dead_letter.is_some() {
            return Some(Paint::Bad);
        }
        match self.r#type.as_deref().unwrap_or_default().rsplit_once('.') {
            Some(("order", "completed")) => Some(Paint::Good),
            Some((_, "failed" | "rejected" | "cancelled")) => Some(Paint::Bad),
            _ => None,
        }
    }

    fn to_line(&self) -> String {
        let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), one_line);
        let time = self.time.map_or("-".to_owned(), clock_time);
        let place = format!("{}[{}]@{}", self.topic, self.partition, self.offset);
        columns(&time, &place, &or_dash(&self.r#type), &or_dash(&self.key), &or_dash(&self.source), &self.short_data())
    }

    /// The data without what the line shows already, cut to a length.
    fn short_data(&self) -> String {
        let mut text = match &self.dead_letter {
            Some(letter) => format!("dead letter: {} · ", letter.error.as_deref().unwrap_or("no reason given")),
            None => String::new(),
        };
        match &self.data {
            Value::Object(fields) => {
                let told = |value: &&Value| value.as_str().is_none() || value.as_str() != self.key.as_deref();
                let fields: Vec<String> = fields
                    .iter()
                    .filter(|(_, value)| told(value))
                    .map(|(name, value)| format!("{name}={}", short(value)))
                    .collect();
                text.push_str(&fields.join(" "));
            }
            Value::Null => text.push('-'),
            other => text.push_str(&short(other)),
        }
        let text = one_line(&text);
        match text.char_indices().nth(SHOWN_DATA) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// A value in as few letters as tell it: money as an amount, lists as their elements.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(elements) => elements.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(fields) => match serde_json::from_value::<shared_events::Money>(value.clone()) {
            Ok(money) => money.to_string().replace(' ', ""),
            Err(_) => match (fields.get("sku"), fields.get("quantity")) {
                (Some(Value::String(sku)), Some(quantity)) => format!("{quantity}x{sku}"),
                _ => value.to_string(),
            },
        },
        other => other.to_string(),
    }
}

fn columns(time: &str, place: &str, r#type: &str, key: &str, source: &str, data: &str) -> String {
    format!("{time:<12}  {place:<24} {type:<22} {key:<36}  {source:<17} {data}").trim_end().to_owned()
}

/// Today's events differ in their time of day; the day is in the JSON.
fn clock_time(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn record(topic: &str, value: Option<&str>, headers: &[(&str, &str)]) -> Record {
        Record {
            origin: Origin { topic: topic.into(), partition: 3, offset: 42 },
            timestamp: Some("2026-01-31T12:00:00.5Z".parse().unwrap()),
            key: Some(b"k1".to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned().into(), Some(value.as_bytes().to_vec())))
                .collect(),
        }
    }

    fn words(record: &Record) -> String {
        EventLine::of(record).to_line().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_line_tells_an_event_in_short() {
        let headers = [(header::TYPE, "order.created"), (header::SOURCE, "order-service")];
        let data = r#"{"orderId":"k1","total":{"minor":1250,"currency":"EUR"},"items":[{"sku":"TEA","quantity":2}]}"#;
        assert_eq!(
            words(&record("orders", Some(data), &headers)),
            "12:00:00.500 orders[3]@42 order.created k1 order-service items=2xTEA total=12.50EUR"
        );
    }

    #[test]
    fn what_is_no_event_is_shown_all_the_same() {
        assert_eq!(words(&record("orders", None, &[])), "12:00:00.500 orders[3]@42 - k1 - -");
        assert_eq!(
            words(&record("orders", Some("no\njson\x1b[2J"), &[])),
            "12:00:00.500 orders[3]@42 - k1 - no·json·[2J"
        );
        let long = "x".repeat(1000);
        assert!(words(&record("orders", Some(&long), &[])).ends_with("xxx…"));
    }

    #[test]
    fn a_dead_letter_says_why_it_died() {
        let headers = [("kafka_dlt-exception-message", "no such sku")];
        let letter = record("orders.inventory-service.dlt", Some("{}"), &headers);
        assert!(words(&letter).ends_with("dead letter: no such sku ·"), "{}", words(&letter));
        assert_eq!(EventLine::of(&letter).paint(), Some(Paint::Bad));
    }
}
