//! The scheduler, and what a consumer keeps of its partitions, against a simulated broker, its coordinator, a database and
//! handlers, in virtual time: thousands of random schedules, each from a seed that a failure prints. `SIMULATION_SEED=n`
//! repeats one, `SIMULATION_SCHEDULES=n` runs so many of each simulation.
//!
//! What a schedule may hold: several partitions and keys, records without a key, events that are published twice, batches
//! of up to seven records, failures of all three classes, handlers with and without an inbox, outages, recognised or not,
//! slow attempts, results that come late, failing dead-letter writes, repeated offsets, floods of dead letters, and records
//! that end the process. Then members of one group that give partitions back, in time or not, lose them without noticing,
//! die and come back; commits that are refused, late, or carried out and reported as failed; and dead letters that are put
//! back into their partition, for one of two groups.
//!
//! What is checked, after every step:
//! - I1: no offset is committed above a record that nobody has handled or dead-lettered, whoever commits it.
//! - I2: a member attempts one record of a key at a time, whichever assignments it had before. Members do so too, but for
//!   attempts of a partition that was taken away before they ended: lost to an expired session, or cut off at the drain's
//!   deadline. Even then records are done in their key's order when first they are: whoever is at a record has seen
//!   those before it done. With an inbox there is no other time, so effects are in order without exception; a handler
//!   without one may repeat an earlier effect after a later one, and nothing here could prevent it.
//! - I3: with room for an attempt no record waits but for its key, its own retry, its dependency, or an end to a flood; and
//!   what is in hand keeps within its budget.
//! - I5: what was drained in time and committed is not attempted by the next owner; after its revoke has returned a member
//!   names a partition in no commit, but may not know yet that it lost one; results of older assignments count for nothing;
//!   and while a member keeps a partition, its commits do not take the group back, though some fail and are repeated.
//! - I10: an event with an inbox is handled once, however often it is replayed or delivered again, by the group it is for;
//!   and a dead letter is replayed a bounded number of times.

#![expect(clippy::print_stdout, reason = "how much was explored is part of the result")]

mod inbox;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use world::{Counts, Faults, World};

const SCHEDULES: u64 = 300;

#[test]
fn simulation_with_failures_only() {
    explore(Faults { failures: true, ..Faults::default() }, &["duplicates", "late results"]);
}

#[test]
fn simulation_with_failures_and_rebalances() {
    let faults = Faults { failures: true, rebalances: true, ..Faults::default() };
    explore(faults, &["clean hand-overs", "cut off", "answered too late", "expired", "at once with an old owner"]);
}

#[test]
fn simulation_with_commits_that_fail() {
    let faults = Faults { failures: true, rebalances: true, commits: true, ..Faults::default() };
    explore(faults, &["refused commits", "lost answers", "commits of old owners", "taken back"]);
}

#[test]
fn simulation_with_replays_of_dead_letters() {
    let faults = Faults { failures: true, rebalances: true, replays: true, ..Faults::default() };
    explore(faults, &["replays", "handled by a replay", "quarantined", "skipped", "replays of what was handled"]);
}

#[test]
fn simulation_with_outages() {
    explore(Faults { outages: true, ..Faults::default() }, &[]);
}

#[test]
fn simulation_with_floods_of_dead_letters() {
    explore(Faults { failures: true, floods: true, ..Faults::default() }, &["floods"]);
}

#[test]
fn simulation_with_outages_taken_for_failures() {
    explore(Faults { failures: true, outages: true, misjudged: true, ..Faults::default() }, &["misjudged"]);
}

#[test]
fn simulation_with_everything() {
    let faults = Faults { deaths: false, misjudged: false, ..Faults::ALL };
    explore(faults, &["shared", "clean hand-overs"]);
}

#[test]
fn simulation_with_records_that_end_the_process() {
    let counts = explore(Faults { deaths: true, failures: true, ..Faults::default() }, &["unsolved deaths"]);
    assert!(counts.of("deaths") > counts.of("unsolved deaths"), "{counts:?}");
}

#[test]
fn simulation_with_everything_and_records_that_end_the_process() {
    explore(Faults::ALL, &[]);
}

/// What took place in all schedules together: `expected` among it.
fn explore(faults: Faults, expected: &[&str]) -> Counts {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let one = number("SIMULATION_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let schedules = seeds.end - seeds.start;
    let name = thread::current().name().unwrap_or("simulation").to_owned();
    let mut sum = Counts::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, faults).run())) {
            Ok(counts) => sum.merge(&counts),
            Err(panic) => {
                eprintln!(
                    "{name} failed in schedule {seed}; again, alone: \
                     SIMULATION_SEED={seed} cargo test -p event-runtime --test it {name} -- --exact"
                );
                resume_unwind(panic);
            }
        }
    }
    println!("{name}: {schedules} schedules, {sum:?}");
    for what in expected.iter().filter(|_| one.is_none()) {
        assert!(sum.of(what) > 0, "{name}: in {schedules} schedules there were no {what}: {sum:?}");
    }
    sum
}
