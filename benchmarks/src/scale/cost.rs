//! What a record costs in CPU time, and what memory is left once all are handled, beside a loop written by hand.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use event_runtime::{ConsumerBuilder, consumer::ConsumerMetrics, topics::TopicSpec};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject},
    measure::{Count, Process},
    pass_through::{Nothing, by_hand},
    site::{PATIENCE, Site},
    topics::{Bought, fill},
};

/// How long memory is watched once all records are handled: buffers empty within this.
const SETTLES: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Records of so many keys through an empty handler: their rate and CPU time, and the memory that is left after them.
pub async fn run<const TOPIC: usize>(
    site: &Site,
    workload: &str,
    records: u64,
    keys: u64,
) -> anyhow::Result<Vec<Results>> {
    let topic = Bought::<TOPIC>::TOPIC;
    let settings = json!({
        "records": records, "partitions": topic.partitions, "keys": keys.min(records), "embedded": site.is_embedded(),
    });
    site.make_topics(&[TopicSpec::from(topic)]).await?;
    site.step(&format!("{workload}: writing records"));
    let kafka = site.kafka.clone();
    spawn_blocking(move || fill::<TOPIC>(&kafka, records, keys)).await??;

    let mut rates = Results::new(workload, "records/s", settings.clone());
    let mut left = Results::new(workload, "MiB left", settings);
    let (by_hand, ours) = (Subject::by_hand("BaseConsumer, serde_json"), Subject::runtime("PlainHandler"));
    site.steps(2 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        site.step(&format!("{workload}: by hand"));
        rates.add(&by_hand, loop_by_hand::<TOPIC>(site, records).await?);
        site.step_done();
        site.step(&format!("{workload}: event-runtime"));
        let (rate, memory) = by_the_runtime::<TOPIC>(site, records).await?;
        rates.add(&ours, rate);
        left.add(&ours, Round { value: memory, ..Round::default() });
        site.step_done();
    }
    site.remove_topic(topic.name).await?;
    Ok(vec![rates, left])
}

async fn loop_by_hand<const TOPIC: usize>(site: &Site, records: u64) -> anyhow::Result<Round> {
    let client = site.hand_written(site.new_group())?;
    let count = Arc::new(Count::of(records, site.meter));
    let counted = Arc::clone(&count);
    spawn_blocking(move || by_hand::read::<TOPIC>(client, &counted, true)).await??;
    Ok(count.round())
}

/// And the MiB that this process has, with the consumer that has nothing more to do.
async fn by_the_runtime<const TOPIC: usize>(site: &Site, records: u64) -> anyhow::Result<(Round, f64)> {
    let count = Arc::new(Count::of(records, site.meter));
    let builder = ConsumerBuilder::new(site.new_group()).plain(Nothing::<TOPIC>::of(&count));
    let consumer = site.start(builder, &ConsumerMetrics::default())?;
    let round = count.all(PATIENCE).await?;
    let left = memory_left().await?;
    consumer.shutdown(PATIENCE).await?;
    anyhow::ensure!(count.so_far() == records, "{} records were handled, not {records}", count.so_far());
    Ok((round, left))
}

/// The least of some seconds.
async fn memory_left() -> anyhow::Result<f64> {
    let this = Process::numbered(std::process::id());
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut least = f64::INFINITY;
    for _ in 0..SETTLES.as_millis() / LOOK_EVERY.as_millis() {
        looks.tick().await;
        least = least.min(this.memory().context("this system does not say how much memory is in use")?);
    }
    Ok(least)
}
