//! `watch`: the events of all services as they happen, read from Kafka.

use event_runtime::{
    Clock,
    cli::{KafkaArgs, ReadArgs, exit, follow},
    reader::Brokers,
};
use shared_events::{OrderId, topics};

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Only the events of this order
    #[arg(long, value_name = "ORDER", value_parser = super::parse_order_id)]
    order: Option<OrderId>,

    /// Only this topic, repeatable [default: all, with their dead-letter topics]
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    kafka: KafkaArgs,
}

pub fn run(args: &WatchArgs) -> anyhow::Result<u8> {
    let (output, kafka) = args.kafka.start();
    let topics = match args.topic.as_slice() {
        [] => declared_topics(&Brokers::new(&kafka, None)?.topics()?)?,
        named => named.to_vec(),
    };
    let key = args.order.map(|order| order.to_string());
    let keep =
        |record: &event_runtime::Record| key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
    follow(&output, &kafka, &topics, &args.read, Clock::system().now(), keep)?;
    Ok(exit::OK)
}

/// The topics of the order system that exist, with the dead letters.
fn declared_topics(existing: &std::collections::BTreeMap<String, i32>) -> anyhow::Result<Vec<String>> {
    let events = topics::TOPICS.iter().map(|topic| topic.name.to_owned());
    let found: Vec<String> =
        events.chain(topics::dead_letter_topics()).filter(|name| existing.contains_key(name)).collect();
    anyhow::ensure!(
        !found.is_empty(),
        "this Kafka has none of the order system's topics; the services create them at their start, and so does \
         `eventctl topics apply`"
    );
    Ok(found)
}
