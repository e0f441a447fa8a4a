//! The whole order system: every service as a process of its own, on the broker and the database server that are given.
//! How many orders a second go through it, how long one takes at a steady rate, and what one costs.
//!
//! At a steady rate orders are placed when they are due, whatever became of those before, and an order's time counts from
//! when it was due: a system that stalls is not spared the orders that would have come meanwhile. A rate at which more
//! than a second's orders were unfinished when the last one was due is reported as one that was not sustained.
//!
//! An order has ended when its `order.completed` is read from the topic. Its mail and the sale of its stock follow, and
//! CPU time counts until they are done. Its deadline comes later still and finds it ended; that is a figure of its own.

mod endings;
mod latency;
mod system;

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use self::{
    endings::Endings,
    latency::{Placed, behind, latencies},
    system::{Costs, System},
};
use crate::{
    figure::{Results, Round, Subject},
    site::{PATIENCE, Site},
};

/// Orders before anything is measured: connections are made and statements prepared.
const WARM_UP: u64 = 200;
const QUANTILES: [(f64, &str); 4] = [(0.5, "ms p50"), (0.99, "ms p99"), (0.999, "ms p99.9"), (1.0, "ms max")];

#[derive(Args)]
pub struct Options {
    /// How many orders are placed as fast as they are accepted
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    orders: u64,

    /// How many of them are being placed at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: u64,

    /// Steady rates, orders a second
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 500], value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,

    /// How long orders come at each rate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs the workload.
///
/// # Errors
/// When an order did not complete once, was not charged once, or its customer did not get one mail.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    site.step("starting the services");
    let system = System::start(site).await?;
    let endings = Endings::read(&site.kafka)?;
    let mut run = Run { system, endings, orders: 0 };
    site.step("warming up");
    run.stretch(WARM_UP, 16, None).await?;

    let settings = json!({
        "orders": options.orders, "concurrency": options.concurrency, "seconds": options.seconds,
        "embedded": site.is_embedded(), "database": run.system.database(),
    });
    let of = |unit| Results::new("orders", unit, settings.clone());
    let (mut rate_of_all, mut behind_at_end, mut cpu, mut memory) =
        (of("orders/s"), of("orders behind at the end"), of("CPU ms an order"), of("peak MiB"));
    let mut times = QUANTILES.map(|(_, unit)| of(unit));
    site.steps(u64::from(site.rounds) * (1 + options.rates.len() as u64));
    for _ in 0..site.rounds {
        site.step("as fast as orders are accepted");
        let stretch = run.stretch(options.orders, options.concurrency, None).await?;
        let subject = Subject::runtime("as fast as accepted");
        rate_of_all.add(&subject, Round { value: stretch.rate(), ..Round::default() });
        for (name, used) in run.system.each(&stretch.costs, options.orders) {
            cpu.add(
                &Subject::runtime(format!("as fast as accepted: {name}")),
                Round { value: used, ..Round::default() },
            );
        }
        // The mock cluster's figures say nothing: nobody need wait for the deadlines there.
        if !site.is_embedded() {
            site.step("waiting for the deadlines");
            let costs = run.deadlines().await?;
            let used = run.system.total(&costs, options.orders);
            cpu.add(&Subject::runtime("deadlines, idle time included"), Round { value: used, ..Round::default() });
        }
        site.step_done();
        for rate in &options.rates {
            site.step(&format!("{rate} orders/s"));
            let orders = u64::from(*rate) * options.seconds;
            let stretch = run.stretch(orders, orders, Some(*rate)).await?;
            let unfinished = stretch.behind();
            let sustained = unfinished <= u64::from(*rate);
            let subject =
                Subject::runtime(if sustained { format!("{rate}/s") } else { format!("{rate}/s: NOT SUSTAINED") });
            behind_at_end.add(&subject, Round { value: unfinished as f64, ..Round::default() });
            cpu.add(&subject, Round { value: run.system.total(&stretch.costs, orders), ..Round::default() });
            let latencies = latencies(&stretch.placed, &stretch.ended)?;
            for ((quantile, _), results) in QUANTILES.iter().zip(&mut times) {
                let value = latencies.value_at_quantile(*quantile) as f64 / 1e3;
                results.add(&subject, Round { value, ..Round::default() });
            }
            site.step_done();
        }
        run.system.check(run.orders).await?;
    }
    for (name, peak) in run.system.peak_memory() {
        memory.add(&Subject::runtime(name), Round { value: peak, ..Round::default() });
    }
    Ok([rate_of_all].into_iter().chain(times).chain([behind_at_end, cpu, memory]).collect())
}

struct Run {
    system: System,
    endings: Endings,
    /// Placed so far.
    orders: u64,
}

/// Orders that were placed and have ended.
struct Stretch {
    placed: Vec<Placed>,
    /// By the orders' places in `placed`.
    ended: Vec<Instant>,
    costs: Costs,
}

impl Run {
    /// Places orders, so many at once at most, at `rate` or as fast as they are accepted, and waits until everything that
    /// they set in motion is done.
    async fn stretch(&mut self, orders: u64, at_once: u64, rate: Option<u32>) -> anyhow::Result<Stretch> {
        let (before, begin) = (self.system.costs(), Instant::now());
        let first = self.orders;
        self.orders += orders;
        let system = &self.system;
        let place = |number: u64| async move {
            let due = rate.map(|rate| begin + Duration::from_secs_f64(number as f64 / f64::from(rate)));
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            let due = due.unwrap_or_else(Instant::now);
            anyhow::Ok(Placed { due, order: system.place(first + number).await? })
        };
        let placing = stream::iter((0..orders).map(place)).buffer_unordered(at_once as usize);
        let placed: Vec<Placed> = placing.try_collect().await?;
        self.endings.wait_for(self.orders).await?;
        let ended = self.endings.of(&placed)?;
        self.system.wait_until_done(self.orders).await?;
        Ok(Stretch { placed, ended, costs: self.system.costs().since(&before) })
    }

    /// Waits for the deadline of every order.
    async fn deadlines(&self) -> anyhow::Result<Costs> {
        let before = self.system.costs();
        self.endings.wait_for_deadlines(self.orders).await?;
        self.system.wait_until_done(self.orders).await?;
        Ok(self.system.costs().since(&before))
    }
}

impl Stretch {
    /// Orders a second, from the first that was placed to the last that ended.
    fn rate(&self) -> f64 {
        let begin = self.placed.iter().map(|placed| placed.due).min();
        let took = begin.zip(self.ended.iter().max()).map_or(f64::NAN, |(begin, end)| (*end - begin).as_secs_f64());
        self.placed.len() as f64 / took
    }

    /// How many were unfinished when the last one was due.
    fn behind(&self) -> u64 {
        behind(&self.placed, &self.ended)
    }
}

/// Waits until `so_far` says `wanted`, as long as it grows.
async fn grows_to(what: &str, wanted: u64, so_far: impl Fn() -> u64) -> anyhow::Result<()> {
    let (mut seen, mut since) = (so_far(), Instant::now());
    while seen < wanted {
        // Seldom enough to cost nothing, and when something ended is noted elsewhere.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = so_far();
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "no {what} came for {PATIENCE:?} after {now} of {wanted}");
    }
    Ok(())
}
