//! The scheduler against a simulated broker and simulated handlers, in virtual time: thousands of random schedules, each
//! from a seed that a failure prints. `SIMULATION_SEED=n` repeats one, `SIMULATION_SCHEDULES=n` runs so many.
//!
//! What a schedule may hold: several partitions and keys, records without a key, failures of all three classes,
//! outages, slow attempts, failing dead-letter writes, revokes with and without a complete drain, lost partitions,
//! crashes, repeated offsets, and floods of dead letters.

#![expect(clippy::print_stdout, reason = "how much was explored is part of the result")]

mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Faults, World};

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
    assert!(explore(Faults { failures: true, floods: true, ..Faults::default() }) > 0, "there was no flood");
}

#[test]
fn simulation_with_everything() {
    explore(Faults { failures: true, rebalances: true, outages: true, floods: true });
}

/// How many floods there were.
fn explore(faults: Faults) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let schedules = seeds.end - seeds.start;
    let (mut starts, mut floods) = (0, 0);
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, faults).run())) {
            Ok(counts) => (starts, floods) = (starts + counts.0, floods + counts.1),
            Err(panic) => {
                eprintln!("{faults:?} failed with SIMULATION_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    println!("{faults:?}: {schedules} schedules, {starts} attempts, {floods} floods");
    floods
}
