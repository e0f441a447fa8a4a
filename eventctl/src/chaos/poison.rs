//! Records that no consumer can read, as a careless producer may write them at any time.

use event_runtime::{
    cli::{Format, exit},
    producer::{OutgoingRecord, Producer},
};
use serde_json::json;
use shared_events::{
    Event, EventId, MailSent, OrderCreated, OrderDeadlineReached, PaymentSucceeded, StockReserved, header,
    topics::{GROUPS, dead_letter_topic},
};

use super::{MARK, TargetArgs, duplicates::event_topic};

/// More dead letters than this in a minute, and a consumer may take it for a flood and stop (100 is its limit).
pub const MOST: u64 = 50;

#[derive(Debug, clap::Args)]
pub struct PoisonArgs {
    /// Into which topic
    #[arg(long, value_name = "TOPIC", default_value = "orders", value_parser = event_topic)]
    topic: String,

    /// How many, up to 50: from 100 dead letters a minute on, a consumer takes them for a flood and stops
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    count: u64,

    /// Under which key, such as an order's id
    #[arg(long, value_name = "KEY", default_value = "poison")]
    key: String,

    #[command(flatten)]
    target: TargetArgs,
}

pub async fn run(args: PoisonArgs) -> anyhow::Result<u8> {
    let target = args.target.find().await?;
    let PoisonArgs { topic, count, key, .. } = args;
    let dead: Vec<_> = dead_letter_topics(&topic).collect();
    match target.output.format() {
        Format::Table => {
            let line = vec![topic.clone(), count.to_string(), dead.join(", ")];
            target.output.table(&["TOPIC", "RECORDS", "DEAD LETTERS GO TO"], &[(None, line)])?;
        }
        Format::Json | Format::Jsonl => target.output.value(&json!({
            "executed": target.execute, "topic": topic, "records": count, "deadLetterTopics": dead,
        }))?,
    }
    if !target.goes_ahead(&format!("{count} records that nobody can read are written to {topic}")) {
        return Ok(exit::OK);
    }
    let producer = Producer::new(&target.kafka)?;
    for number in 0..count {
        producer.send(record(number, &topic, &key)).await?;
    }
    target.output.note(format_args!(
        "{count} records are written. Each consumer group of {topic} is to put each of them into its dead-letter topic \
         and go on: `eventctl dlt list` has them, `eventctl dlt show TOPIC:PARTITION:OFFSET` says why"
    ));
    Ok(exit::OK)
}

/// The `number`-th record that nobody can read, of three kinds by turns: bytes without a header; an event without a type;
/// an event whose JSON breaks off.
pub fn record(number: u64, topic: &str, key: &str) -> OutgoingRecord {
    let id = EventId::new().to_string();
    let event_type = TYPES.iter().find(|(known, _)| *known == topic).map_or("", |(_, event_type)| event_type);
    let headers = [
        (header::SPEC_VERSION, "1.0"),
        (header::ID, &id),
        (header::SOURCE, "chaos"),
        (header::TIME, "2026-01-01T00:00:00Z"),
        (MARK, "poison"),
        (header::TYPE, event_type),
    ];
    let (value, headers) = match number % 3 {
        0 => (b"\xff\xfe\x00 no event".to_vec(), &headers[..0]),
        1 => (b"{}".to_vec(), &headers[..5]),
        _ => (br#"{"orderId":"#.to_vec(), &headers[..]),
    };
    OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers: headers.iter().map(|(name, value)| ((*name).into(), Some(value.as_bytes().to_vec()))).collect(),
    }
}

/// An event type that each topic's consumers handle: others they skip.
const TYPES: [(&str, &str); 5] = [
    (OrderCreated::TOPIC.name, OrderCreated::TYPE),
    (PaymentSucceeded::TOPIC.name, PaymentSucceeded::TYPE),
    (StockReserved::TOPIC.name, StockReserved::TYPE),
    (MailSent::TOPIC.name, MailSent::TYPE),
    (OrderDeadlineReached::TOPIC.name, OrderDeadlineReached::TYPE),
];

/// Where the groups that read `topic` put what they cannot handle.
fn dead_letter_topics(topic: &str) -> impl Iterator<Item = String> {
    let reads = move |group: &&shared_events::Group| group.topics.iter().any(|read| read.name == topic);
    GROUPS.iter().filter(reads).map(move |group| dead_letter_topic(topic, group.name))
}
