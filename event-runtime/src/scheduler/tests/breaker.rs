//! Failures of most keys are an outage; see `scheduler/breaker.rs` for what most is.

use std::time::Duration;

use super::{Bench, HANDLED, NONE, ms, offer, partition};
use crate::{
    HandlerError,
    scheduler::{BreakerLimits, Limits, Offer, Outcome, Scheduler, Task, Verdict},
};

const AT_LEAST: i64 = 10;

/// With room for more keys at once than open the breaker.
fn bench() -> Bench {
    let limits = Limits { concurrency: 32, records: 10_000, bytes: 1_000_000 };
    let mut bench = Bench::with(limits);
    bench.scheduler = Scheduler::new(limits).breaking(BreakerLimits::default());
    bench.scheduler.assign(partition(0), 1);
    bench
}

/// Records at these offsets, each with a key of its own.
fn offer_keys(bench: &mut Bench, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        bench.offer(offset, &format!("key-{offset}"));
    }
}

fn refuse(bench: &mut Bench, offset: i64) -> Verdict {
    bench.fail(offset, HandlerError::retry("refused"))
}

/// Twelve keys fail, and the tenth opens the breaker.
fn opened() -> Bench {
    let mut bench = bench();
    offer_keys(&mut bench, 0..12);
    bench.start_all();
    for offset in 0..AT_LEAST - 1 {
        assert_eq!(refuse(&mut bench, offset), Verdict::Retry { pause: ms(50) });
    }
    assert_eq!(refuse(&mut bench, 9), Verdict::Unavailable { began: true });
    assert_eq!(refuse(&mut bench, 10), Verdict::Unavailable { began: false });
    assert_eq!(refuse(&mut bench, 11), Verdict::Unavailable { began: false });
    bench
}

#[test]
fn when_most_of_many_keys_fail_one_probes_at_a_time_and_no_attempt_is_used_up() {
    let mut bench = opened();
    offer_keys(&mut bench, 12..14);
    bench.scheduler.offer(&partition(0), 1, Offer { handler: 9, ..offer(14, "other") });
    assert_eq!(bench.start_all(), [14], "another handler is not concerned");
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [12], "who has not failed probes first");
    let mut probed = vec![12];
    for _ in 0..60 {
        assert_eq!(refuse(&mut bench, *probed.last().unwrap()), Verdict::Unavailable { began: false });
        bench.now = bench.scheduler.next_timer().unwrap();
        let mut started = bench.start_all();
        // The first retries become due meanwhile, and are held.
        for _ in 0..AT_LEAST {
            if started.is_empty() {
                bench.now = bench.scheduler.next_timer().unwrap();
                started = bench.start_all();
            }
        }
        assert_eq!(started.len(), 1, "{started:?}");
        probed.extend(started);
    }
    for offset in 0..14 {
        let times = probed.iter().filter(|probe| **probe == offset).count();
        assert!((4..=5).contains(&times), "each in its turn, {offset} {times} times: {probed:?}");
        // The first nine had failed before it was open.
        let attempt = if offset < 9 { 2 } else { 1 };
        assert_eq!(bench.started(offset).attempt, attempt, "{offset}");
    }
}

#[test]
fn who_has_failed_before_it_opened_lets_others_probe_first() {
    let mut bench = opened();
    bench.now = ms(60);
    assert_eq!(bench.start_all(), NONE, "the first retries are due");
    offer_keys(&mut bench, 12..13);
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [12]);
}

#[test]
fn keys_that_are_handled_beside_keep_it_closed() {
    let mut bench = bench();
    offer_keys(&mut bench, 0..15);
    bench.start_all();
    refuse(&mut bench, 0);
    bench.handled_all(&[12, 13, 14]);
    for offset in 1..11 {
        assert!(matches!(refuse(&mut bench, offset), Verdict::Retry { .. }), "{} of {}", offset + 1, offset + 4);
    }
    assert_eq!(refuse(&mut bench, 11), Verdict::Unavailable { began: true }, "twelve of fifteen are 80 %");
}

#[test]
fn a_probe_that_is_handled_closes_it() {
    let mut bench = opened();
    bench.now = ms(100);
    let probe = bench.start_all();
    let [probe] = probe[..] else { panic!("{probe:?}") };
    assert_eq!(bench.finish(probe, HANDLED), Verdict::Handled { outage_ended: Some(ms(100)) });
    assert_eq!(bench.start_all().len(), 11, "all others");
    let next = if probe == 0 { 1 } else { 0 };
    assert_eq!(
        refuse(&mut bench, next),
        Verdict::Bury,
        "a failure is its record's again, and this was its last attempt"
    );
}

#[test]
fn a_rejection_is_no_sign_of_an_outage() {
    let mut bench = bench();
    offer_keys(&mut bench, 0..20);
    bench.start_all();
    for offset in 0..20 {
        assert_eq!(bench.fail(offset, HandlerError::reject("bad")), Verdict::Bury);
    }
    assert_eq!(bench.start_all().len(), 20, "their dead letters");

    let mut bench = self::bench();
    offer_keys(&mut bench, 0..32);
    bench.start_all();
    for offset in 0..32 {
        let error = if offset % 3 == 0 { HandlerError::reject("bad") } else { HandlerError::retry("refused") };
        assert!(!matches!(bench.fail(offset, error), Verdict::Unavailable { .. }), "two of three are no 80 %");
    }

    let mut bench = opened();
    bench.now = ms(100);
    let probe = bench.start_all()[0];
    assert_eq!(bench.fail(probe, HandlerError::reject("bad")), Verdict::Bury, "not even while it is open");
}

#[test]
fn fewer_keys_than_the_limit_use_up_their_attempts_however_often_they_fail() {
    let mut bench = bench();
    for round in 0..5 {
        for key in 0..AT_LEAST - 1 {
            bench.offer(round * 9 + key, &format!("key-{key}"));
        }
    }
    for _ in 0..5 {
        for _attempt in 0..2 {
            for offset in bench.start_all() {
                assert!(!matches!(refuse(&mut bench, offset), Verdict::Unavailable { .. }));
            }
            bench.now += ms(1000);
        }
        let letters = bench.start_all();
        assert_eq!(letters.len(), 9);
        for offset in letters {
            assert!(matches!(bench.started(offset).task, Task::Bury(_)));
            bench.finish(offset, Outcome::Buried);
        }
    }
    assert_eq!(bench.watermarks(), [45]);
}

#[test]
fn nine_keys_of_poison_among_a_thousand_good_ones_are_dead_letters() {
    let mut bench = bench();
    offer_keys(&mut bench, 0..1009);
    let mut letters = 0;
    while !bench.watermarks().contains(&1009) {
        assert!(bench.now < Duration::from_secs(60), "{letters} dead letters");
        for offset in bench.start_all() {
            let verdict = match &bench.started(offset).task {
                Task::Bury(_) => {
                    letters += 1;
                    bench.finish(offset, Outcome::Buried)
                }
                Task::Handle { .. } if offset < 9 => refuse(&mut bench, offset),
                Task::Handle { .. } => bench.finish(offset, HANDLED),
            };
            assert!(!matches!(verdict, Verdict::Unavailable { .. }), "{offset}");
        }
        bench.now += ms(10);
    }
    assert_eq!(letters, 9);
}

/// What ends it when the records are at fault after all: here many are, and a good one comes now and then.
#[test]
fn poison_of_many_keys_ends_as_dead_letters_where_a_key_is_handled_now_and_then() {
    let mut bench = bench();
    offer_keys(&mut bench, 0..30);
    let (mut letters, mut next) = (0, 30);
    for _ in 0..10_000 {
        for offset in bench.start_all() {
            match &bench.started(offset).task {
                Task::Bury(_) => {
                    letters += 1;
                    bench.finish(offset, Outcome::Buried);
                }
                Task::Handle { .. } if offset < 30 => drop(refuse(&mut bench, offset)),
                Task::Handle { .. } => bench.handled(offset),
            }
        }
        bench.now += ms(100);
        if bench.now.as_millis().is_multiple_of(1000) {
            offer_keys(&mut bench, next..next + 1);
            next += 1;
        }
        if letters == 30 {
            return;
        }
    }
    panic!("{letters} of 30 within {:?}", bench.now);
}

#[test]
fn without_any_success_probes_use_up_attempts_in_the_end() {
    let mut bench = opened();
    let patience = BreakerLimits::default().patience;
    let mut letters = 0;
    for _ in 0..20_000 {
        for offset in bench.start_all() {
            match &bench.started(offset).task {
                Task::Bury(_) => {
                    letters += 1;
                    bench.finish(offset, Outcome::Buried);
                }
                Task::Handle { .. } => {
                    let counts = !matches!(refuse(&mut bench, offset), Verdict::Unavailable { .. });
                    assert_eq!(counts, bench.now >= patience, "{offset} at {:?}", bench.now);
                }
            }
        }
        if letters == 12 {
            break;
        }
        // What is ready for its dead letter needs no timer.
        bench.now = bench.scheduler.next_timer().unwrap_or(bench.now);
    }
    assert!(letters == 12 && bench.now < patience * 2, "{letters} at {:?}", bench.now);
    assert_eq!(bench.start_all(), NONE);
    assert_eq!(bench.watermarks(), [12]);
}
