//! Much to catch up with: whether memory stays where it is while a consumer that is slower than its topic works off its
//! lag. What grows with the backlog would end a service when it is needed most.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use event_runtime::{
    ConsumerBuilder, Delivery, HandlerError, PlainHandler, consumer::ConsumerMetrics, topics::TopicSpec,
};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject, median},
    measure::{Count, Process},
    site::{PATIENCE, Site},
    topics::{Bought, fill, topic::BACKLOG},
};

type Order = Bought<BACKLOG>;

const KEYS: u64 = 100_000;
/// What a handler waits. With the runtime's default of 32 at once this leaves the client's queues full.
const SLEEP: Duration = Duration::from_millis(1);

#[derive(Args)]
pub struct Options {
    /// How many records wait
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(2..))]
    records: u64,

    /// How long the consumer is watched, unless it is through before
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..))]
    seconds: u64,
}

/// Runs the workload.
///
/// # Errors
/// When nothing is handled, or the system does not say how much memory there is in use.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    site.make_topics(&[TopicSpec::from(Order::TOPIC)]).await?;
    site.step("writing records");
    let (kafka, records) = (site.kafka.clone(), options.records);
    let wrote = spawn_blocking(move || fill::<BACKLOG>(&kafka, records, KEYS));
    wrote.await??;

    site.steps(options.seconds);
    site.step("catching up");
    let count = Arc::new(Count::of(records, site.meter));
    let builder = ConsumerBuilder::new(site.new_group()).plain(Slow(Arc::clone(&count)));
    let consumer = site.start(builder, &ConsumerMetrics::default())?;
    let this = Process::numbered(std::process::id());
    let (mut seconds, mut samples) = (tokio::time::interval(Duration::from_secs(1)), Vec::new());
    for _ in 0..=options.seconds {
        seconds.tick().await;
        samples.push(this.memory().context("this system does not say how much memory is in use")?);
        site.step_done();
        if count.so_far() >= records {
            break;
        }
    }
    let handled = count.so_far();
    anyhow::ensure!(handled > 0, "nothing was handled in {} s", options.seconds);
    consumer.shutdown(PATIENCE).await?;
    let settings = json!({
        "records": records, "handled": handled, "keys": KEYS, "partitions": Order::TOPIC.partitions,
        "sleep_us": SLEEP.as_micros() as u64, "rss_mib_by_second": samples.iter().map(|mib| mib.round()).collect::<Vec<_>>(),
        "embedded": site.is_embedded(),
    });
    let ours = Subject::runtime("memory while catching up");
    let mut used = Results::new("backlog", "MiB", settings.clone());
    for mib in &samples {
        used.add(&ours, Round { value: *mib, ..Round::default() });
    }
    let mut grown = Results::new("backlog", "MiB grown", settings);
    grown.add(&ours, Round { value: growth(&samples), ..Round::default() });
    Ok(vec![used, grown])
}

/// From the second quarter of the samples to the last: the first is that of buffers that fill.
fn growth(samples: &[f64]) -> f64 {
    let quarter = samples.len() / 4;
    median(&samples[samples.len() - quarter.max(1)..]) - median(&samples[quarter..(2 * quarter).max(quarter + 1)])
}

/// Takes its time.
struct Slow(Arc<Count>);

impl PlainHandler for Slow {
    type Event = Order;

    async fn handle(&self, _: &Delivery<Order>) -> Result<(), HandlerError> {
        tokio::time::sleep(SLEEP).await;
        self.0.one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_told_from_buffers_that_fill() {
        let filled: Vec<f64> = [10.0, 60.0, 100.0, 100.0, 100.0, 100.0, 101.0, 101.0].to_vec();
        assert_eq!(growth(&filled), 1.0);
        let leaks: Vec<f64> = (0..40).map(f64::from).collect();
        assert_eq!(growth(&leaks), 20.0);
        assert_eq!(growth(&[5.0]), 0.0);
    }
}
