//! How much passes through: records that are read, parsed into a typed event, given to a handler that does nothing, and
//! committed at least once.

mod batch_call;
pub mod by_hand;

use std::sync::Arc;

use clap::Args;
use event_runtime::{ConsumerBuilder, Delivery, HandlerError, PlainHandler, consumer::ConsumerMetrics};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{Bought, fill, topic::PASS_THROUGH},
};

/// What is read.
type Order = Bought<PASS_THROUGH>;

const KEYS: u64 = 1000;

#[derive(Args)]
pub struct Options {
    /// How many records are read in each round
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(2..))]
    records: u64,
}

/// Runs the workload.
///
/// # Errors
/// When a subject did not do all of the work.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let records = options.records;
    let settings = json!({
        "records": records, "partitions": Order::TOPIC.partitions, "keys": KEYS,
        "value_bytes": serde_json::to_vec(&Order::number(0, KEYS))?.len(), "embedded": site.is_embedded(),
    });
    let specs = ConsumerBuilder::new("benchmark")
        .plain(Nothing::<PASS_THROUGH>(Arc::new(Count::of(0, site.meter))))
        .topic_specs()
        .to_vec();
    // Of the runtime's topics only the first is ever written to: nothing fails here.
    site.make_topics(&specs[..1]).await?;
    site.step("writing records");
    let kafka = site.kafka.clone();
    spawn_blocking(move || fill::<PASS_THROUGH>(&kafka, records, KEYS)).await??;

    let [parsed, unparsed] = ["BaseConsumer, serde_json", "BaseConsumer, not parsed"].map(Subject::by_hand);
    let [batch_parsed, batch_unparsed] = ["batch call, serde_json", "batch call, not parsed"].map(Subject::by_hand);
    let plain = Subject::runtime("PlainHandler");
    let mut results = Results::new("pass-through", "records/s", settings);
    site.steps(5 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        for (subject, parse) in [(&parsed, true), (&unparsed, false)] {
            results.add(
                subject,
                loop_by_hand(site, records, subject, move |count, client| {
                    by_hand::read::<PASS_THROUGH>(client, count, parse)
                })
                .await?,
            );
        }
        for (subject, parse) in [(&batch_parsed, true), (&batch_unparsed, false)] {
            results.add(
                subject,
                loop_by_hand(site, records, subject, move |count, client| batch_call::read(client, count, parse))
                    .await?,
            );
        }
        site.step("event-runtime");
        results.add(&plain, by_the_runtime(site, records).await?);
        site.step_done();
    }
    Ok(vec![results])
}

async fn loop_by_hand(
    site: &Site,
    records: u64,
    subject: &Subject,
    read: impl FnOnce(&Count, rdkafka::ClientConfig) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Round> {
    site.step(&subject.variant);
    let client = site.hand_written(site.new_group())?;
    let count = Arc::new(Count::of(records, site.meter));
    let counted = Arc::clone(&count);
    spawn_blocking(move || read(&counted, client)).await??;
    site.step_done();
    Ok(count.round())
}

async fn by_the_runtime(site: &Site, records: u64) -> anyhow::Result<Round> {
    let count = Arc::new(Count::of(records, site.meter));
    let builder = ConsumerBuilder::new(site.new_group()).plain(Nothing::<PASS_THROUGH>::of(&count));
    let consumer = site.start(builder, &ConsumerMetrics::default())?;
    let round = count.all(PATIENCE).await?;
    consumer.shutdown(PATIENCE).await?;
    anyhow::ensure!(count.so_far() == records, "{} records were handled, not {records}", count.so_far());
    Ok(round)
}

/// Does nothing.
pub struct Nothing<const TOPIC: usize>(Arc<Count>);

impl<const TOPIC: usize> Nothing<TOPIC> {
    pub fn of(count: &Arc<Count>) -> Self {
        Nothing(Arc::clone(count))
    }
}

impl<const TOPIC: usize> PlainHandler for Nothing<TOPIC> {
    type Event = Bought<TOPIC>;

    async fn handle(&self, _: &Delivery<Bought<TOPIC>>) -> Result<(), HandlerError> {
        self.0.one();
        Ok(())
    }
}
