//! Handlers that wait for somebody else: how near to the bound they run side by side, while records of one key run one
//! after the other. The bound is that of the waits that really happened: nothing can be faster than all of them shared
//! out among the places there are, nor than those of the busiest key one after the other.

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use event_runtime::{
    ConsumerBuilder, Delivery, HandlerError, PlainHandler, consumer::ConsumerMetrics, topics::TopicSpec,
};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject},
    journal::Journal,
    load::{Keys, Load},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{
        Work, Writer,
        topic::{KEYED_IO_A, KEYED_IO_B, KEYED_IO_C, KEYED_IO_D},
    },
};

#[derive(Args)]
pub struct Options {
    /// How many records each case has
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    records: u64,

    /// Which cases run; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Name>,

    /// How many handlers run at the same time in the cases a, c and d; b has 1,000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,

    /// Makes the same keys and waits again
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// 1,000 keys in 1 partition, 0 to 5 ms
    A,
    /// 10,000 keys in 6 partitions, 50 ms, 1,000 at once
    B,
    /// As a, with keys drawn by Zipf's law, exponent 1.1
    C,
    /// As a, with 50 keys
    D,
}

const MS: u32 = 1000;

/// Runs the workload.
///
/// # Errors
/// When records were lost, repeated, out of order or side by side with others of their key.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let names = if options.cases.is_empty() { Name::value_variants() } else { &options.cases };
    site.steps(names.len() as u64 * u64::from(site.rounds));
    let mut results = Vec::new();
    for name in names {
        results.push(match name {
            Name::A => case::<KEYED_IO_A>(site, options, "a", Keys::Uniform(1000), 0..=5 * MS).await?,
            Name::B => case::<KEYED_IO_B>(site, options, "b", Keys::Uniform(10_000), 50 * MS..=50 * MS).await?,
            Name::C => case::<KEYED_IO_C>(site, options, "c", Keys::Zipf(1000, 1.1), 0..=5 * MS).await?,
            Name::D => case::<KEYED_IO_D>(site, options, "d", Keys::Uniform(50), 0..=5 * MS).await?,
        });
    }
    Ok(results)
}

async fn case<const TOPIC: usize>(
    site: &Site,
    options: &Options,
    name: &str,
    keys: Keys,
    sleeps_us: std::ops::RangeInclusive<u32>,
) -> anyhow::Result<Results> {
    let topic = Work::<TOPIC>::TOPIC;
    let concurrency = if TOPIC == KEYED_IO_B { 1000 } else { options.concurrency as usize };
    let settings = json!({
        "records": options.records, "partitions": topic.partitions, "keys": keys, "sleep_us": [sleeps_us.start(), sleeps_us.end()],
        "concurrency": concurrency, "seed": options.seed, "embedded": site.is_embedded(),
    });
    let load = Arc::new(Load::drawn(options.seed, options.records, &keys, sleeps_us));
    site.make_topics(&[TopicSpec::from(topic)]).await?;
    let (writer, written) = (Writer::fast(&site.kafka)?, Arc::clone(&load));
    spawn_blocking(move || {
        for work in written.work::<TOPIC>() {
            writer.write(&work, (work.key % topic.partitions.unsigned_abs()) as i32)?;
        }
        writer.finish()
    })
    .await??;

    let mut results = Results::new(format!("keyed-io-{name}"), "ms", settings);
    for round in 0..site.rounds {
        site.step(&format!("keyed-io ({name}), round {}", round + 1));
        let (bound, ours) = by_the_runtime::<TOPIC>(site, &load, concurrency).await?;
        results.add(&Subject::by_hand("bound of the sleeps"), bound);
        results.add(&Subject::runtime("PlainHandler"), ours);
        site.step_done();
    }
    Ok(results)
}

/// The bound, and what it took.
async fn by_the_runtime<const TOPIC: usize>(
    site: &Site,
    load: &Load,
    concurrency: usize,
) -> anyhow::Result<(Round, Round)> {
    let records = load.records();
    let journal = Arc::new(Journal::of(records));
    let count = Arc::new(Count::of(records as u64, site.meter));
    let sleeper = Sleeper::<TOPIC> { journal: Arc::clone(&journal), count: Arc::clone(&count) };
    let builder = ConsumerBuilder::new(site.new_group()).plain(sleeper).concurrency(concurrency);
    let consumer = site.start(builder, &ConsumerMetrics::default())?;
    let cost = count.all(PATIENCE).await?;
    consumer.shutdown(PATIENCE).await?;
    let verdict = journal.verdict(load.keys())?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let bound = Round { value: ms(verdict.bound(concurrency)), ..Round::default() };
    Ok((bound, Round { value: ms(verdict.elapsed), ..cost }))
}

/// Waits as long as the record says.
pub struct Sleeper<const TOPIC: usize> {
    pub journal: Arc<Journal>,
    pub count: Arc<Count>,
}

impl<const TOPIC: usize> PlainHandler for Sleeper<TOPIC> {
    type Event = Work<TOPIC>;

    async fn handle(&self, delivery: &Delivery<Work<TOPIC>>) -> Result<(), HandlerError> {
        let Work { number, sleep_us, .. } = delivery.event;
        self.journal.begins(number);
        tokio::time::sleep(Duration::from_micros(sleep_us.into())).await;
        self.journal.ends(number);
        self.count.one();
        Ok(())
    }
}
