//! What a record that always fails costs the others: how long healthy records take from their due time to their end, with
//! one key of a hundred failing at every attempt, and without. Records come at a steady rate whatever the consumer does,
//! and their time counts from when they were due, so that a stall is not forgotten.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use event_runtime::{ConsumerBuilder, Delivery, HandlerError, PlainHandler, consumer::ConsumerMetrics};
use serde_json::json;
use shared_events::Event as _;
use tokio::task::spawn_blocking;

use crate::{
    figure::{Results, Round, Subject, percentile},
    measure::Count,
    site::{PATIENCE, Site},
    topics::{Work, Writer, topic::POISON},
};

const KEYS: u32 = 100;
/// What fails.
const POISONED: u32 = 0;
const SLEEP_US: u32 = 2000;

#[derive(Args)]
pub struct Options {
    /// How many records there are
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(200..))]
    records: u64,

    /// How many come in a second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

/// Runs the workload.
///
/// # Errors
/// When healthy records were lost.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let settings = json!({
        "records": options.records, "rate": options.rate, "keys": KEYS, "failing_keys": 1, "sleep_us": SLEEP_US,
        "embedded": site.is_embedded(),
    });
    let ours = Subject::runtime("healthy records, one key fails");
    let theirs = Subject::by_hand("the same without a failing key");
    let percentiles = [(50.0, "ms p50"), (99.0, "ms p99")];
    let mut results = percentiles.map(|(_, unit)| Results::new("poison", unit, settings.clone()));
    site.steps(2 * u64::from(site.rounds));
    for _ in 0..site.rounds {
        for (subject, fails) in [(&theirs, false), (&ours, true)] {
            site.step(&subject.variant);
            let delays = delays(site, options, fails).await?;
            for ((percent, _), results) in percentiles.iter().zip(&mut results) {
                results.add(subject, Round { value: percentile(&delays, *percent), ..Round::default() });
            }
            site.step_done();
        }
    }
    Ok(results.into())
}

/// Of the records that do not fail, in ms.
async fn delays(site: &Site, options: &Options, fails: bool) -> anyhow::Result<Vec<f64>> {
    let healthy = (0..options.records).filter(|number| key(*number) != POISONED).count();
    let schedule = Schedule { begin: Arc::default(), gap: Duration::from_secs(1) / options.rate };
    let notes: Arc<[AtomicU64]> = (0..options.records).map(|_| AtomicU64::new(0)).collect();
    let count = Arc::new(Count::of(healthy as u64, site.meter));
    let handler = Fragile { fails, schedule: schedule.clone(), notes: Arc::clone(&notes), count: Arc::clone(&count) };
    let builder = ConsumerBuilder::new(site.new_group()).plain(handler);
    site.make_topics(builder.topic_specs()).await?;
    let topics: Vec<String> = builder.topic_specs().iter().map(|spec| spec.name.clone()).collect();
    let consumer = site.start(builder, &ConsumerMetrics::default())?;
    while consumer.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (writer, records) = (Writer::prompt(&site.kafka)?, options.records);
    spawn_blocking(move || {
        writer.connect::<Work<POISON>>()?;
        schedule.begin.get_or_init(Instant::now);
        for number in 0..records {
            std::thread::sleep(schedule.due(number).saturating_duration_since(Instant::now()));
            let work = Work::<POISON> { number, key: key(number), sleep_us: SLEEP_US };
            writer.write(&work, (work.key % Work::<POISON>::TOPIC.partitions.unsigned_abs()) as i32)?;
        }
        writer.finish()
    })
    .await??;
    count.all(PATIENCE).await?;
    // The failing key's last records are still waiting for their retries; nobody waits for them.
    consumer.shutdown(Duration::ZERO).await?;
    for topic in topics {
        site.remove_topic(&topic).await?;
    }
    let delays: Vec<f64> =
        notes.iter().map(|note| note.load(Ordering::Relaxed)).filter(|note| *note > 0).map(ms).collect();
    anyhow::ensure!(delays.len() == healthy, "{} of {healthy} healthy records were handled", delays.len());
    Ok(delays)
}

/// Spread over the keys without a pattern that a scheduler could profit from.
fn key(number: u64) -> u32 {
    ((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % u64::from(KEYS)) as u32
}

fn ms(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}

/// When each record is due.
#[derive(Clone)]
struct Schedule {
    /// Set when the consumer has joined its group.
    begin: Arc<OnceLock<Instant>>,
    gap: Duration,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        *self.begin.get_or_init(Instant::now) + self.gap * number as u32
    }
}

/// Does its work, but for one key.
struct Fragile {
    fails: bool,
    schedule: Schedule,
    /// µs from due to done, by record.
    notes: Arc<[AtomicU64]>,
    count: Arc<Count>,
}

impl PlainHandler for Fragile {
    type Event = Work<POISON>;

    async fn handle(&self, delivery: &Delivery<Work<POISON>>) -> Result<(), HandlerError> {
        let Work { number, key, sleep_us } = delivery.event;
        if key == POISONED {
            return if self.fails { Err(HandlerError::retry("poison")) } else { Ok(()) };
        }
        tokio::time::sleep(Duration::from_micros(sleep_us.into())).await;
        let delay = Instant::now().saturating_duration_since(self.schedule.due(number));
        self.notes[number as usize].store(delay.as_micros().max(1) as u64, Ordering::Relaxed);
        self.count.one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_key_has_its_share_and_no_turn() {
        let mut counts = HashMap::<u32, u64>::new();
        (0..2000).for_each(|number| *counts.entry(key(number)).or_default() += 1);
        assert_eq!(counts.len(), KEYS as usize);
        assert!(counts.values().all(|count| (5..60).contains(count)), "{counts:?}");
    }

    #[test]
    fn records_are_due_at_a_steady_rate() {
        let schedule = Schedule { begin: Arc::default(), gap: Duration::from_millis(2) };
        assert_eq!(schedule.due(500) - schedule.due(0), Duration::from_secs(1));
    }
}
