//! The scheduler against a simulated broker and simulated handlers, in virtual time: thousands of random schedules, each
//! from a seed that a failure prints. `SIMULATION_SEED=n` repeats one, `SIMULATION_SCHEDULES=n` runs so many.
//!
//! What a schedule may hold: several partitions and keys, records without a key, batches of up to seven records, failures
//! of all three classes, outages, recognised or not, slow attempts, failing dead-letter writes, revokes with and without a complete drain, lost partitions,
//! crashes, repeated offsets, floods of dead letters, and records that end the process.

#![expect(clippy::print_stdout, reason = "how much was explored is part of the result")]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Counts, Faults, World};

const SCHEDULES: u64 = 600;

#[test]
fn simulation_with_failures_only() {
    explore(Faults { failures: true, ..Faults::default() });
}

#[test]
fn simulation_with_failures_and_rebalances() {
    explore(Faults { failures: true, rebalances: true, ..Faults::default() });
}

#[test]
fn simulation_with_outages() {
    explore(Faults { outages: true, ..Faults::default() });
}

#[test]
fn simulation_with_floods_of_dead_letters() {
    assert!(explore(Faults { failures: true, floods: true, ..Faults::default() }).floods > 0, "there was no flood");
}

#[test]
fn simulation_with_outages_taken_for_failures() {
    let faults = Faults { failures: true, outages: true, misjudged: true, ..Faults::default() };
    assert!(explore(faults).misjudged > 0, "none was recognised");
}

#[test]
fn simulation_with_everything() {
    let counts = explore(Faults { failures: true, rebalances: true, outages: true, floods: true, ..Faults::default() });
    assert!(counts.shared > 0, "no records shared a transaction");
}

#[test]
fn simulation_with_records_that_end_the_process() {
    let counts = explore(Faults { deaths: true, failures: true, ..Faults::default() });
    assert!(counts.deaths > counts.unsolved && counts.unsolved > 0, "{counts:?}");
}

#[test]
fn simulation_with_everything_and_records_that_end_the_process() {
    explore(Faults { failures: true, rebalances: true, outages: true, misjudged: true, floods: true, deaths: true });
}

/// What took place in all schedules together.
fn explore(faults: Faults) -> Counts {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let schedules = seeds.end - seeds.start;
    let mut sum = Counts::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, faults).run())) {
            Ok(counts) => {
                sum.starts += counts.starts;
                sum.floods += counts.floods;
                sum.misjudged += counts.misjudged;
                sum.deaths += counts.deaths;
                sum.unsolved += counts.unsolved;
                sum.outlived += counts.outlived;
                sum.shared += counts.shared;
            }
            Err(panic) => {
                eprintln!("{faults:?} failed with SIMULATION_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    println!("{faults:?}: {schedules} schedules, {sum:?}");
    sum
}
