//! Records that may have ended the process.

use super::*;
use crate::scheduler::{CrashedError, Legacy};

/// A partition that waits for its past, with room for two attempts: eight records may be the cause.
fn held() -> Bench {
    let mut bench = Bench::new(2);
    bench.scheduler.assign_held(partition(0), 1);
    bench
}

/// After two deaths in a row, or none.
fn admit(bench: &mut Bench, crashed: bool, crashes: &[(i64, u32)]) {
    let deaths = if crashed { 2 } else { 0 };
    let legacy = Legacy { deaths, crashes: crashes.iter().copied().collect(), ..Legacy::default() };
    bench.scheduler.admit(&partition(0), 1, legacy);
}

fn crashed(error: &HandlerError) -> CrashedError {
    *error.source_error().downcast_ref().expect("the reason is that the process ended")
}

fn done_before(bench: &mut Bench, offset: i64) {
    bench.finish(offset, Outcome::Handled { proves_dependency: false });
}

#[test]
fn nothing_of_a_held_partition_starts() {
    let mut bench = held();
    bench.scheduler.assign(partition(1), 1);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c")]);
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    assert_eq!(bench.start_all(), [70]);
    assert!(bench.scheduler.is_held(&partition(0), 1));
    bench.handled(70);
    bench.scheduler.admit(&partition(0), 2, Legacy::default());
    assert_eq!(bench.start_all(), NONE, "the answer for another assignment");
    admit(&mut bench, false, &[]);
    assert_eq!(bench.start_all(), [0, 1]);
    assert!(!bench.started(0).careful);
}

#[test]
fn a_held_partition_is_no_probe() {
    let mut bench = held();
    bench.scheduler.assign(partition(1), 1);
    bench.offer(0, "a");
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    assert_eq!(bench.start_all(), [70]);
    bench.unavailable(70);
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [70], "and not the one that has not met the outage");
}

#[test]
fn after_a_crash_records_run_alone_until_enough_are_done() {
    let mut bench = held();
    bench.scheduler.assign(partition(1), 1);
    admit(&mut bench, true, &[]);
    assert_eq!(bench.scheduler.careful(), 1);
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    assert_eq!(bench.start_all(), [70], "what is above suspicion");
    bench.offer_all(&(0..12).map(|number| (number, "")).collect::<Vec<_>>());
    bench.scheduler.offer(&partition(1), 1, offer(71, "y"));
    assert_eq!(bench.start_all(), NONE, "the first careful one waits for the other, and 71 behind it");
    bench.handled(70);
    assert_eq!(bench.start_all(), [0]);
    assert!(bench.started(0).careful);
    assert_eq!(bench.start_all(), NONE, "nothing beside it");
    done_before(&mut bench, 0);
    assert_eq!(bench.start_all(), [71]);
    bench.handled(71);
    for offset in 1..=8 {
        assert_eq!(bench.start_all(), [offset]);
        bench.handled(offset);
    }
    assert_eq!(bench.scheduler.careful(), 0, "eight were done that were not before");
    assert_eq!(bench.start_all(), [9, 10]);
}

#[test]
fn as_many_are_suspect_as_a_transaction_may_have_held() {
    let mut bench = held();
    bench.scheduler = Scheduler::new(bench.scheduler.limits).batching(10, false);
    bench.scheduler.assign_held(partition(0), 1);
    admit(&mut bench, true, &[]);
    for offset in 0..10 {
        assert_eq!(bench.scheduler.careful(), 1, "{offset}");
        bench.offer(offset, "");
        assert_eq!(bench.start_all(), [offset]);
        bench.handled(offset);
    }
    assert_eq!(bench.scheduler.careful(), 0);
}

#[test]
fn one_death_is_an_accident_unless_its_cause_is_known() {
    for (legacy, expected) in [
        (Legacy { deaths: 1, ..Legacy::default() }, &[0, 1][..]),
        (Legacy { deaths: 2, ..Legacy::default() }, &[0][..]),
        (Legacy { deaths: 1, culprit: Some(7), ..Legacy::default() }, &[0][..]),
    ] {
        let mut bench = held();
        bench.offer_all(&[(0, "a"), (1, "b")]);
        bench.scheduler.admit(&partition(0), 1, legacy.clone());
        assert_eq!(bench.start_all(), expected, "{legacy:?}");
    }
}

#[test]
fn held_partitions_are_counted() {
    let mut bench = held();
    bench.scheduler.assign_held(partition(1), 1);
    bench.scheduler.assign(partition(2), 1);
    assert_eq!(bench.scheduler.held(), 2);
    admit(&mut bench, false, &[]);
    assert_eq!(bench.scheduler.held(), 1);
}

#[test]
fn a_partition_is_careful_until_it_is_past_a_record_that_has_ended_the_process() {
    let mut bench = held();
    admit(&mut bench, false, &[(2, 1)]);
    assert_eq!(bench.scheduler.careful(), 1);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    assert_eq!(bench.start_all(), [0, 1], "these are above suspicion");
    bench.handled_all(&[0, 1]);
    assert_eq!(bench.scheduler.careful(), 1);
    // Of a type that is not ours after all.
    bench.scheduler.skip(&partition(0), 1, 2);
    assert_eq!(bench.scheduler.careful(), 0);
}

#[test]
fn what_waits_for_its_retry_holds_nobody_up() {
    let mut bench = held();
    admit(&mut bench, true, &[]);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    bench.scheduler.assign(partition(1), 1);
    assert_eq!(bench.start_all(), [0]);
    bench.fail(0, HandlerError::retry("no"));
    assert_eq!(bench.start_all(), [1]);
    bench.handled(1);
    for (offset, key) in [(70, "y"), (71, "z")] {
        bench.scheduler.offer(&partition(1), 1, offer(offset, key));
    }
    assert_eq!(bench.start_all(), [70, 71]);
    bench.now = ms(100);
    assert_eq!(bench.start_all(), NONE, "its time has come, and it must be alone");
    bench.handled(70);
    bench.handled(71);
    assert_eq!(bench.start_all(), [0]);
}

#[test]
fn a_probe_of_a_careful_record_runs_alone() {
    let mut bench = held();
    admit(&mut bench, true, &[]);
    bench.scheduler.assign(partition(1), 1);
    bench.offer(0, "a");
    assert_eq!(bench.start_all(), [0]);
    bench.unavailable(0);
    bench.scheduler.offer(&partition(1), 1, Offer { handler: 9, ..offer(70, "y") });
    assert_eq!(bench.start_all(), [70]);
    bench.scheduler.offer(&partition(1), 1, Offer { handler: 9, ..offer(71, "z") });
    bench.now = ms(100);
    assert_eq!(bench.start_all(), NONE, "the probe is due, and waits for 70 to end");
    bench.handled(70);
    assert_eq!(bench.start_all(), [0]);
    bench.handled(0);
    assert_eq!(bench.start_all(), [71]);
}

#[test]
fn records_from_after_the_crash_are_above_suspicion() {
    let mut bench = held();
    admit(&mut bench, true, &[]);
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 0, end: 2 });
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 0, end: 9 });
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c"), (3, "d")]);
    assert_eq!(bench.start_all(), [0]);
    bench.handled(0);
    assert_eq!(bench.start_all(), [1]);
    bench.handled(1);
    assert_eq!(bench.scheduler.careful(), 0);
    assert_eq!(bench.start_all(), [2, 3]);
}

#[test]
fn deaths_are_attempts_and_after_the_last_the_handler_is_asked_no_more() {
    let mut bench = held();
    bench.offer(0, "a");
    admit(&mut bench, false, &[(0, 1), (1, 2), (2, 3)]);
    bench.offer_all(&[(1, "b"), (2, "c"), (3, "d")]);
    bench.scheduler.offer(&partition(0), 1, Offer { retry: RetryPolicy::unlimited(), ..offer(4, "e") });
    assert_eq!(bench.start_all(), [0]);
    let start = bench.started(0);
    assert_eq!((start.attempt, start.careful), (2, true));
    assert!(matches!(start.task, Task::Handle { last_attempt: true }));
    assert_eq!(bench.fail(0, HandlerError::retry("no")), Verdict::Bury, "one death and one failure");
    assert_eq!(bench.start_all(), [1]);
    let start = bench.started(1);
    let Task::Bury(error) = &start.task else { panic!("{start:?}") };
    assert_eq!(crashed(error), CrashedError { crashes: 2, untold: false });
    assert_eq!((start.attempt, start.careful), (2, true));
    bench.finish(1, Outcome::Buried);
    assert_eq!(bench.start_all(), [2]);
    let Task::Bury(error) = &bench.started(2).task else { panic!("it is attempted") };
    assert_eq!(crashed(error), CrashedError { crashes: 3, untold: true }, "the dead letter was deadly, too");
}

#[test]
fn retries_without_a_limit_have_one_for_deaths() {
    let policy = RetryPolicy::unlimited();
    assert!(!policy.gives_up_after_crashes(9) && policy.gives_up_after_crashes(10));
    assert!(!RETRY.gives_up_after_crashes(1) && RETRY.gives_up_after_crashes(2));
}
