//! `status`: where an order stands. Its timeline comes from order-service; dead letters are read from Kafka and merged.

use std::time::Duration;

use event_runtime::{
    Record,
    cli::{BrokerArgs, Format, Output, exit},
    config::{KafkaConfig, discovery::Discovery},
    reader::{Position, collect},
    telemetry::trace::trace_id,
};
use jiff::Timestamp;
use shared_events::{OrderId, header, topics};

use super::{
    ServiceArgs,
    api::{Entry, Order},
    follow::{Followed, Pace, follow},
    timeline::{TimelineWriter, state_paint},
};

/// Dead letters are an extra: they must not keep anybody waiting for long.
const DEAD_LETTERS_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 completed or pending, 1 unknown order or failure, 3 cancelled")]
pub struct StatusArgs {
    /// The order's id, as `place` printed it
    #[arg(value_name = "ORDER", value_parser = super::parse_order_id)]
    order: OrderId,

    /// Stay until the order has ended, and show events as they come
    #[arg(long)]
    watch: bool,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    service: ServiceArgs,

    #[command(flatten)]
    brokers: BrokerArgs,
}

pub async fn run(args: StatusArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let api = args.service.api(&output)?;
    let (mut order, mut value) = api.order(args.order).await?;
    if args.watch {
        if output.is_table() {
            write_head(&output, &order)?;
        }
        let as_document = output.format() == Format::Json;
        let mut timeline = TimelineWriter::new(&output);
        let followed = follow(&api, args.order, None, Pace::LIVE, |order, last| match as_document {
            true => Ok(()),
            false => timeline.update(order, last),
        });
        if let Followed::Ended(last, last_value) = followed.await? {
            (order, value) = (last, last_value);
        }
        match output.format() {
            Format::Table => write_state(&output, &order)?,
            Format::Json | Format::Jsonl => output.value(&value)?,
        }
        return Ok(exit_code(&order));
    }
    let kafka = args.brokers.find(&output, &Discovery::from_process());
    merge_dead_letters(&mut order, &mut value, kafka, &output).await;
    match output.format() {
        Format::Table => {
            write_head(&output, &order)?;
            write_state(&output, &order)?;
            TimelineWriter::new(&output).update(&order, true)?;
        }
        Format::Json | Format::Jsonl => output.value(&value)?,
    }
    Ok(exit_code(&order))
}

fn exit_code(order: &Order) -> u8 {
    if order.is_cancelled() { exit::CANCELLED } else { exit::OK }
}

fn write_head(output: &Output, order: &Order) -> std::io::Result<()> {
    let items: Vec<String> = order.items.iter().map(|item| format!("{} x {}", item.quantity, item.sku)).collect();
    let total = order.total.map_or(String::new(), |total| format!(", {total}"));
    output.line(format_args!("order     {}", order.order_id))?;
    output.line(format_args!("customer  {}", order.customer))?;
    output.line(format_args!("items     {}{total}", items.join(", ")))?;
    match order.created_at {
        Some(time) => output.line(format_args!("placed    {}", time.strftime("%Y-%m-%d %H:%M:%S UTC"))),
        None => Ok(()),
    }
}

fn write_state(output: &Output, order: &Order) -> std::io::Result<()> {
    let reason = order.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
    let state = output.painted(state_paint(&order.state), format_args!("{}{reason}", order.state));
    output.line(format_args!("state     {state}"))
}

/// Adds the order's dead letters to its timeline. Without Kafka the timeline is shown as order-service tells it.
async fn merge_dead_letters(order: &mut Order, value: &mut serde_json::Value, kafka: KafkaConfig, output: &Output) {
    let key = order.order_id.to_string();
    // Nothing about an order is older than the order; clocks may differ a little.
    let since = order.created_at.map(|time| time - jiff::SignedDuration::from_mins(1));
    let read = move || {
        let wanted = |record: &Record| record.key.as_deref() == Some(key.as_bytes());
        let from = since.map_or(Position::Start, Position::At);
        collect(&kafka, is_dead_letter_topic, from, DEAD_LETTERS_WITHIN, wanted)
    };
    let collected = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) => {
            output.note(format_args!("dead letters are not shown: {:#}", anyhow::Error::new(error)));
            return;
        }
        Err(_) => return,
    };
    if !collected.complete {
        output.note("not all dead letters could be read in time; `eventctl tail` reads the rest");
    }
    let letters: Vec<Entry> = collected.records.iter().map(dead_letter_entry).collect();
    if letters.is_empty() {
        return;
    }
    order.timeline.extend(letters);
    order.timeline.sort_by_key(|entry| entry.time);
    if let (Some(slot), Ok(timeline)) = (value.get_mut("timeline"), serde_json::to_value(&order.timeline)) {
        *slot = timeline;
    }
}

fn is_dead_letter_topic(name: &str) -> bool {
    topics::GROUPS
        .iter()
        .flat_map(|group| group.topics.iter().map(|topic| topics::dead_letter_topic(topic.name, group.name)))
        .any(|declared| declared == name)
}

fn dead_letter_entry(record: &Record) -> Entry {
    let text = |name| record.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    let event = text(header::TYPE).unwrap_or_else(|| "unreadable event".to_owned());
    let group = record.origin.topic.trim_end_matches(".dlt").rsplit_once('.').map_or("", |(_, group)| group);
    Entry {
        time: record.timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
        service: group.to_owned(),
        event: "dead letter".to_owned(),
        event_id: text(header::ID),
        topic: Some(record.origin.topic.clone()),
        partition: Some(record.origin.partition),
        offset: Some(record.origin.offset),
        attempt: text("kafka_dlt-attempts").and_then(|attempts| attempts.parse().ok()),
        trace_id: text(header::TRACE_PARENT).and_then(|parent| trace_id(&parent)),
        detail: Some(format!("{event}: {}", text("kafka_dlt-exception-message").unwrap_or_default())),
    }
}
