//! The demo's command line, and its table.

use event_runtime::{
    cli::{Format, Output, Paint, exit},
    config::TelemetryConfig,
    telemetry::{self, LogOptions},
};
use serde_json::{Value, json};

use super::{DELIVERED, Outcome, Scene, WAYS, Way};

/// Handles the same duplicates with and without inbox and idempotency key, and shows who was charged how often
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Plays all ways and shows what was counted; exit code 1 when a number is not what it must be.
///
/// # Errors
/// When the demo cannot be played.
pub async fn run(args: &DemoArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let options = LogOptions::new("idempotency-demo", &TelemetryConfig::default()).stderr().default_filter("warn");
    let telemetry = telemetry::init(&options)?;
    output.note(format_args!(
        "three orders of one customer; their events are delivered as {}: A again behind B, C again at once",
        DELIVERED.join(", ")
    ));
    let scene = Scene::start().await?;
    let mut outcomes = Vec::new();
    for way in WAYS {
        outcomes.push(scene.play(way).await?);
    }
    write(&output, &outcomes)?;
    telemetry.shutdown().await;
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_as_stated()).collect();
    for outcome in &wrong {
        let stated = |tally: &super::Tally| {
            let (handled, charged) = outcome.way.stated(tally.delivered);
            format!("{} handled {handled} and charged {charged}", tally.event)
        };
        let stated: Vec<_> = outcome.tallies.iter().map(stated).collect();
        output.note_painted(
            Some(Paint::Bad),
            format_args!("{}: expected {}; this is a defect", outcome.way.gateway_key(), stated.join(", ")),
        );
    }
    Ok(if wrong.is_empty() { exit::OK } else { exit::FAILURE })
}

impl Way {
    fn inbox(self) -> &'static str {
        match self {
            Way::Unprotected | Way::KeyKept => "off",
            Way::Inbox => "on",
        }
    }

    fn gateway_key(self) -> &'static str {
        match self {
            Way::Unprotected => "fresh each attempt",
            Way::KeyKept | Way::Inbox => "the order's id",
        }
    }
}

impl Outcome {
    /// What became of the events that were delivered twice, in words.
    pub fn result(&self) -> String {
        let mut results: Vec<_> = self
            .tallies
            .iter()
            .filter(|tally| tally.delivered > 1)
            .map(|tally| format!("charged {}, handled {}", times(tally.charged), times(tally.handled)))
            .collect();
        results.dedup();
        results.join("; ")
    }
}

fn times(number: u64) -> String {
    match number {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{number} times"),
    }
}

fn write(output: &Output, outcomes: &[Outcome]) -> std::io::Result<()> {
    let ways: Vec<Value> = outcomes.iter().map(to_json).collect();
    match output.format() {
        Format::Json => {
            let as_stated = outcomes.iter().all(Outcome::is_as_stated);
            return output.value(&json!({ "delivered": DELIVERED, "ways": ways, "asStated": as_stated }));
        }
        Format::Jsonl => return output.rows(&ways),
        Format::Table => {}
    }
    let mut header = vec!["INBOX".to_owned(), "GATEWAY KEY".to_owned()];
    for tally in outcomes.iter().take(1).flat_map(|outcome| &outcome.tallies) {
        header.extend([format!("{} HANDLED", tally.event), format!("{} CHARGED", tally.event)]);
    }
    header.push("DELIVERED TWICE WAS".to_owned());
    let line = |outcome: &Outcome| {
        let mut cells = vec![outcome.way.inbox().to_owned(), outcome.way.gateway_key().to_owned()];
        cells.extend(outcome.tallies.iter().flat_map(|tally| [tally.handled.to_string(), tally.charged.to_string()]));
        cells.push(outcome.result());
        let paint = match outcome.way {
            _ if !outcome.is_as_stated() => Paint::Bad,
            Way::Unprotected => Paint::Bad,
            Way::KeyKept => Paint::Open,
            Way::Inbox => Paint::Good,
        };
        (Some(paint), cells)
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    output.table(&header, &outcomes.iter().map(line).collect::<Vec<_>>())
}

fn to_json(outcome: &Outcome) -> Value {
    json!({
        "inbox": outcome.way.inbox(),
        "gatewayKey": outcome.way.gateway_key(),
        "events": outcome.tallies,
        "result": outcome.result(),
        "asStated": outcome.is_as_stated(),
    })
}
