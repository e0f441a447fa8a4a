//! What the scheduler promises, a case at a time. tests/it/simulation.rs plays it at random.

mod batches;
mod breaker;
mod careful;
mod counts;
mod outage;

use std::{sync::Arc, time::Duration};

use super::{
    Extent, FloodLimits, Generation, InHand, Lag, Limits, Offer, Offered, Outcome, Partition, Scheduler, Start, State,
    Task, Ticket, Verdict,
};
use crate::{HandlerError, RetryPolicy};

const RETRY: RetryPolicy = RetryPolicy::limited(1).backoff(ms(100), ms(1000));

#[test]
fn records_of_one_key_run_one_after_the_other_and_keys_side_by_side() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, "a"), (1, "a"), (2, "b")]);
    assert_eq!(bench.start_all(), [0, 2]);
    bench.handled(0);
    assert_eq!(bench.start_all(), [1]);
}

#[test]
fn records_without_a_key_hold_nobody_up() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, ""), (1, ""), (2, "")]);
    assert_eq!(bench.start_all(), [0, 1, 2]);
}

#[test]
fn no_more_run_than_allowed() {
    let mut bench = Bench::new(2);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c")]);
    assert_eq!(bench.start_all(), [0, 1]);
    bench.handled(1);
    assert_eq!(bench.start_all(), [2]);
}

#[test]
fn partitions_take_turns() {
    let mut bench = Bench::new(2);
    bench.scheduler.assign(partition(1), 1);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c")]);
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    assert_eq!(bench.start_all(), [0, 70]);
}

#[test]
fn a_partition_that_ran_dry_has_one_turn_as_before() {
    let mut bench = Bench::new(1);
    bench.scheduler.assign(partition(1), 1);
    bench.offer(0, "a");
    assert_eq!(bench.start_all(), [0]);
    bench.offer_all(&[(1, "b"), (2, "c")]);
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    for (ended, next) in [(0, 1), (1, 70), (70, 2)] {
        bench.handled(ended);
        assert_eq!(bench.start_all(), [next]);
    }
}

#[test]
fn the_watermark_stops_at_the_first_unhandled_record() {
    let mut bench = Bench::running(&[(5, "a"), (6, "b"), (9, "c")]);
    assert_eq!(bench.watermarks(), NONE);
    bench.handled(6);
    bench.handled(9);
    assert_eq!(bench.watermarks(), NONE);
    bench.handled(5);
    assert_eq!(bench.watermarks(), [10]);
    assert_eq!(bench.watermarks(), NONE, "it is told once");
}

#[test]
fn skipped_records_move_the_watermark() {
    let mut bench = Bench::new(8);
    assert_eq!(bench.scheduler.skip(&partition(0), 1, 3), Offered::Queued);
    assert_eq!(bench.watermarks(), [4]);
}

#[test]
fn the_lag_is_what_is_not_handled_up_to_the_end_and_its_age_that_of_the_first_record() {
    let mut bench = Bench::new(8);
    let lag = |bench: &Bench| bench.scheduler.lags().next().unwrap().1;
    assert_eq!(lag(&bench), Lag { records: None, oldest: None, unread: None }, "what is not known is not 0");
    bench.scheduler.note_extent(&partition(0), 2, Extent { start: 0, end: 90 });
    assert_eq!(lag(&bench).records, None, "an answer for another generation");
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 5, end: 9 });
    assert_eq!(lag(&bench), Lag { records: Some(4), oldest: None, unread: Some(5) }, "nothing has come in yet");
    let written = |second| jiff::Timestamp::from_second(second).ok();
    for (offset, key) in [(5, "a"), (6, "b")] {
        bench.scheduler.offer(&partition(0), 1, Offer { written: written(offset), ..self::offer(offset, key) });
    }
    bench.start_all();
    bench.handled(6);
    assert_eq!(lag(&bench), Lag { records: Some(4), oldest: written(5), unread: None }, "6 is handled above a gap");
    bench.handled(5);
    assert_eq!(lag(&bench), Lag { records: Some(2), oldest: None, unread: Some(7) });
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 5, end: 6 });
    assert_eq!(
        lag(&bench),
        Lag { records: Some(0), oldest: None, unread: None },
        "an end that is older than what was handled"
    );
}

#[test]
fn a_flood_of_dead_letters_stops_everything_and_one_record_at_a_time_tries_again() {
    let mut bench = Bench::new(2);
    let limits = FloodLimits { per_minute: 1, percent: 100, at_least: 10, cool_down: ms(1000) };
    bench.scheduler = Scheduler::new(Limits { concurrency: 2, records: 1000, bytes: 100_000 }).guarded(limits);
    bench.scheduler.assign(partition(0), 1);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    assert_eq!(bench.start_all(), [0, 1]);
    bench.fail(0, HandlerError::reject("no"));
    bench.fail(1, HandlerError::reject("no"));
    assert_eq!(bench.start_all(), [0, 1], "their dead letters");
    bench.finish(0, Outcome::Buried);
    assert_eq!(bench.scheduler.flood(), None, "one is not more than one");
    bench.offer_all(&[(2, "c"), (3, "d")]);
    assert_eq!(bench.start_all(), [2]);
    bench.finish(1, Outcome::Buried);
    assert!(bench.scheduler.flood().is_some());
    assert_eq!(bench.pauses(), [(0, true)]);
    assert_eq!(bench.fail(2, HandlerError::retry("no")), Verdict::Retry { pause: ms(50) });
    bench.now = ms(999);
    assert_eq!(bench.start_all(), NONE, "not even what is due for a retry");
    assert_eq!(bench.scheduler.next_timer(), Some(ms(1000)));
    bench.now = ms(1000);
    assert_eq!(bench.start_all(), [3], "one at a time");
    assert_eq!(bench.pauses(), [(0, false)], "there may be no other in hand");
    bench.handled(3);
    assert_eq!(bench.scheduler.flood(), None);
    assert_eq!(bench.start_all(), [2]);
    assert_eq!(bench.started(2).attempt, 2, "the stop used up no attempt");
    assert_eq!(bench.watermarks(), [2]);
}

#[test]
fn a_partition_that_gives_nothing_before_its_end_is_stalled_after_a_while() {
    let mut bench = Bench::new(8);
    let extent = |bench: &mut Bench, end| bench.scheduler.note_extent(&partition(0), 1, Extent { start: 5, end });
    let stalls = |bench: &mut Bench, now| {
        let stalls = bench.scheduler.stalls(ms(now), ms(1000));
        stalls.into_iter().map(|stall| (stall.position, stall.lag())).collect::<Vec<_>>()
    };
    const NOT: [(i64, i64); 0] = [];
    assert_eq!(stalls(&mut bench, 0), NOT, "the end is not known");
    extent(&mut bench, 5);
    assert_eq!(stalls(&mut bench, 5000), NOT, "there is nothing to read");
    extent(&mut bench, 8);
    assert_eq!(stalls(&mut bench, 6000), NOT, "it has only now been noticed");
    assert_eq!(stalls(&mut bench, 6999), NOT);
    assert_eq!(stalls(&mut bench, 7000), [(5, 3)]);

    bench.offer(5, "a");
    assert_eq!(stalls(&mut bench, 9500), NOT, "it has moved");
    bench.start_all();
    assert_eq!(stalls(&mut bench, 10_500), [(6, 2)], "nothing was read, whatever is in hand");
    bench.handled(5);
    assert_eq!(stalls(&mut bench, 10_500), [(6, 2)], "to handle is not to read");

    let stall = bench.scheduler.stalls(ms(10_500), ms(1000)).remove(0);
    bench.scheduler.note_empty(&stall);
    assert_eq!(stalls(&mut bench, 20_000), NOT, "offsets without a record");
    extent(&mut bench, 9);
    assert_eq!(stalls(&mut bench, 20_500), NOT);
    assert_eq!(stalls(&mut bench, 21_500), [(6, 3)], "but what is written after that must come");

    bench.scheduler.stop(&partition(0));
    assert_eq!(stalls(&mut bench, 30_000), NOT, "it is being given back");
}

#[test]
fn a_paused_partition_is_not_stalled() {
    let mut bench = Bench::with(Limits { concurrency: 1, records: 1, bytes: 1000 });
    bench.offer(0, "a");
    assert_eq!(bench.pauses(), [(0, true)]);
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 0, end: 9 });
    bench.start_all();
    bench.handled(0);
    for now in [0, 5000] {
        assert_eq!(
            bench.scheduler.stalls(ms(now), ms(1000)),
            [],
            "the poll thread does not know yet that it may go on"
        );
    }
    assert_eq!(bench.pauses(), [(0, false)]);
    assert_eq!(bench.scheduler.stalls(ms(6000), ms(1000)), []);
    assert_eq!(bench.scheduler.stalls(ms(7000), ms(1000)).len(), 1);
}

#[test]
fn offsets_that_come_again_are_ignored() {
    let mut bench = Bench::new(8);
    assert_eq!(bench.offer(4, "a"), Offered::Queued);
    assert_eq!(bench.offer(4, "a"), Offered::Repeated);
    assert_eq!(bench.offer(3, "a"), Offered::Repeated);
    assert_eq!(bench.start_all(), [4]);
    bench.handled(4);
    assert_eq!(bench.start_all(), NONE);
}

#[test]
fn a_retry_waits_with_its_key_and_lets_the_others_go() {
    let mut bench = Bench::running(&[(0, "a"), (1, "a"), (2, "b")]);
    assert_eq!(bench.fail(0, HandlerError::retry("no")), Verdict::Retry { pause: ms(50) });
    bench.handled(2);
    bench.offer(3, "b");
    assert_eq!(bench.start_all(), [3]);
    assert_eq!(bench.scheduler.next_timer(), Some(ms(50)));
    bench.now = ms(49);
    assert_eq!(bench.start_all(), NONE);
    bench.now = ms(50);
    assert_eq!(bench.start_all(), [0]);
    assert_eq!(bench.started(0).attempt, 2);
}

#[test]
fn after_the_last_attempt_and_after_a_rejection_comes_the_dead_letter() {
    let mut bench = Bench::running(&[(0, "a"), (1, "b")]);
    assert_eq!(bench.fail(1, HandlerError::reject("bad")), Verdict::Bury);
    bench.fail(0, HandlerError::retry("no"));
    bench.now = ms(500);
    bench.start_all();
    assert!(matches!(bench.started(1).task, Task::Bury(_)));
    assert!(matches!(bench.started(0).task, Task::Handle { last_attempt: true }));
    assert_eq!(bench.fail(0, HandlerError::retry("no")), Verdict::Bury);
    bench.start_all();
    assert!(matches!(&bench.started(0).task, Task::Bury(error) if error.source_error().to_string() == "no"));
}

#[test]
fn a_dead_letter_that_cannot_be_written_holds_its_key_and_the_watermark() {
    let mut bench = Bench::running(&[(0, "a"), (1, "a")]);
    bench.fail(0, HandlerError::reject("bad"));
    bench.start_all();
    for pause in [100, 200, 400].map(ms) {
        assert_eq!(bench.finish(0, Outcome::BuryFailed), Verdict::Retry { pause });
        assert_eq!(bench.start_all(), NONE);
        bench.now += pause;
        assert_eq!(bench.start_all(), [0]);
    }
    assert_eq!(bench.watermarks(), NONE);
    bench.finish(0, Outcome::Buried);
    assert_eq!(bench.watermarks(), [1]);
    assert_eq!(bench.start_all(), [1]);
}

#[test]
fn a_stopped_partition_starts_only_gaps_and_its_removal_says_what_to_commit() {
    let mut bench = Bench::running(&[(0, "a"), (1, "a"), (2, "b"), (3, "b")]);
    bench.scheduler.stop(&partition(0));
    assert_eq!(bench.offer(4, "c"), Offered::NotAssigned);
    bench.handled(2);
    assert_eq!(bench.start_all(), NONE, "3 is above all that was begun");
    bench.handled(0);
    assert!(bench.scheduler.is_draining(&partition(0)), "1 may start");
    assert_eq!(bench.start_all(), [1], "2 was handled, and could not be committed without it");
    bench.handled(1);
    assert!(!bench.scheduler.is_draining(&partition(0)));
    assert_eq!(bench.scheduler.remove(&partition(0)), Some(3));
}

#[test]
fn a_drain_does_not_wait_for_gaps_in_a_flood() {
    let mut bench = Bench::new(8);
    let limits = FloodLimits { per_minute: 0, percent: 100, at_least: 10, cool_down: ms(1000) };
    bench.scheduler = Scheduler::new(Limits { concurrency: 8, records: 1000, bytes: 100_000 }).guarded(limits);
    bench.scheduler.assign(partition(0), 1);
    bench.offer_all(&[(0, "a"), (1, "a"), (2, "b")]);
    bench.start_all();
    bench.fail(2, HandlerError::reject("no"));
    bench.start_all();
    bench.finish(2, Outcome::Buried);
    bench.handled(0);
    bench.scheduler.stop(&partition(0));
    assert!(!bench.scheduler.is_draining(&partition(0)), "1 cannot start before the flood's cool-down is over");
}

#[test]
fn a_stopped_partition_starts_no_gap_above_a_record_that_waits() {
    let mut bench = Bench::running(&[(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "c")]);
    bench.scheduler.stop(&partition(0));
    bench.fail(0, HandlerError::retry("once"));
    bench.handled(1);
    bench.handled(4);
    assert!(!bench.scheduler.is_draining(&partition(0)), "0 holds the watermark, so 3 would be handled twice");
    assert_eq!(bench.start_all(), NONE);
    bench.now = ms(10_000);
    assert_eq!(bench.start_all(), [0, 3], "the retry is due within the drain");
}

#[test]
fn results_of_an_older_generation_count_for_nothing_and_hold_their_key() {
    let mut bench = Bench::running(&[(0, "a")]);
    let old = bench.started(0).ticket;
    bench.scheduler.remove(&partition(0));
    bench.scheduler.assign(partition(0), 2);
    bench.generation = 2;
    bench.offer_all(&[(0, "a"), (1, "b")]);
    assert_eq!(bench.start_all(), [1], "the key's old attempt runs on");
    assert_eq!(bench.scheduler.finish(old, HANDLED, bench.now, 0.0), Verdict::Stale);
    bench.handled(1);
    assert_eq!(bench.watermarks(), NONE);
    assert_eq!(bench.start_all(), [0]);
}

#[test]
fn a_partition_is_paused_at_its_share_and_resumed_at_half_of_it() {
    let limits = Limits { concurrency: 8, records: 8, bytes: 1000 };
    let mut bench = Bench::with(limits);
    bench.scheduler.assign(partition(1), 1);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c")]);
    assert_eq!(bench.pauses(), NO_CHANGE);
    bench.offer(3, "d");
    assert_eq!(bench.pauses(), [(0, true)], "its share is four");
    bench.start_all();
    bench.handled(0);
    assert_eq!(bench.pauses(), NO_CHANGE);
    bench.handled(1);
    assert_eq!(bench.pauses(), [(0, false)]);
}

#[test]
fn bytes_are_budgeted_too() {
    let mut bench = Bench::with(Limits { concurrency: 8, records: 100, bytes: 25 });
    bench.offer_all(&[(0, "a"), (1, "b")]);
    assert_eq!(bench.pauses(), NO_CHANGE);
    bench.offer(2, "c");
    assert_eq!(bench.pauses(), [(0, true)]);
    bench.start_all();
    bench.handled(2);
    assert_eq!(bench.pauses(), NO_CHANGE);
    bench.handled(1);
    assert_eq!(bench.pauses(), [(0, false)]);
}

#[test]
fn a_key_can_be_inspected() {
    let mut bench = Bench::running(&[(0, "a"), (1, "a"), (2, "b")]);
    bench.fail(0, HandlerError::retry("no"));
    let in_hand = bench.scheduler.inspect(b"a");
    let [InHand { attempt: 2, state: State::Waiting(until), last_error: Some(error), .. }, second] = &in_hand[..]
    else {
        panic!("{in_hand:?}")
    };
    assert_eq!((*until, error.source_error().to_string()), (ms(50), "no".to_owned()));
    assert_eq!((second.payload, second.attempt, second.state), (1, 1, State::Queued));
}

/// No offsets.
const NONE: [i64; 0] = [];
const NO_BATCH: [[i64; 0]; 0] = [];
const NO_CHANGE: [(i32, bool); 0] = [];
const HANDLED: Outcome = Outcome::Handled { proves_dependency: true };

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn partition(number: i32) -> Partition {
    Partition { topic: "t".into(), number }
}

/// An empty key is none.
fn offer(offset: i64, key: &str) -> Offer<i64> {
    let key = (!key.is_empty()).then(|| Arc::from(key.as_bytes()));
    Offer { offset, key, bytes: 10, written: None, handler: 0, retry: RETRY, shares: true, payload: offset }
}

/// A scheduler with partition 0 assigned, and the attempts it started, by offset.
struct Bench {
    scheduler: Scheduler<i64>,
    generation: Generation,
    now: Duration,
    started: Vec<Start<i64>>,
}

impl Bench {
    /// With these records, all of them started.
    fn running(records: &[(i64, &str)]) -> Bench {
        let mut bench = Bench::new(8);
        bench.offer_all(records);
        bench.start_all();
        bench
    }

    fn new(concurrency: usize) -> Bench {
        Bench::with(Limits { concurrency, records: 1000, bytes: 100_000 })
    }

    fn with(limits: Limits) -> Bench {
        let mut scheduler = Scheduler::new(limits);
        scheduler.assign(partition(0), 1);
        Bench { scheduler, generation: 1, now: Duration::ZERO, started: Vec::new() }
    }

    /// With batches of up to so many records, from the beginning.
    fn batching(most: usize, gathers: bool) -> Bench {
        let mut bench = Bench::new(8);
        bench.scheduler = Scheduler::new(bench.scheduler.limits).batching(most, gathers);
        for size in [2, 4, 8] {
            bench.scheduler.batch_committed(size, ms(1));
        }
        bench.scheduler.assign(partition(0), 1);
        bench
    }

    /// The offsets of what starts now, batch by batch.
    fn start_batches(&mut self) -> Vec<Vec<i64>> {
        self.scheduler.advance(self.now);
        let mut batches = Vec::new();
        while let Some(first) = self.scheduler.start_next() {
            let joined = self.scheduler.join(first.ticket);
            let batch: Vec<_> = std::iter::once(first).chain(joined).collect();
            batches.push(batch.iter().map(|start| start.payload).collect());
            self.started.extend(batch);
        }
        batches
    }

    /// All that runs has been handled.
    fn finish_all(&mut self) {
        for start in &self.started {
            self.scheduler.finish(start.ticket, HANDLED, self.now, 0.0);
        }
    }

    fn offer(&mut self, offset: i64, key: &str) -> Offered {
        self.scheduler.offer(&partition(0), self.generation, offer(offset, key))
    }

    fn offer_all(&mut self, records: &[(i64, &str)]) {
        for (offset, key) in records {
            assert_eq!(self.offer(*offset, key), Offered::Queued);
        }
    }

    /// The offsets of what starts now.
    fn start_all(&mut self) -> Vec<i64> {
        self.scheduler.advance(self.now);
        let mut offsets = Vec::new();
        while let Some(start) = self.scheduler.start_next() {
            offsets.push(start.payload);
            self.started.push(start);
        }
        offsets
    }

    /// The last attempt that was started at this offset.
    fn started(&self, offset: i64) -> &Start<i64> {
        self.started.iter().rfind(|start| start.payload == offset).expect("it was started")
    }

    fn ticket(&self, offset: i64) -> Ticket {
        self.started(offset).ticket
    }

    fn finish(&mut self, offset: i64, outcome: Outcome) -> Verdict {
        self.scheduler.finish(self.ticket(offset), outcome, self.now, 0.0)
    }

    fn handled_all(&mut self, offsets: &[i64]) {
        offsets.iter().for_each(|offset| self.handled(*offset));
    }

    fn handled(&mut self, offset: i64) {
        self.finish(offset, HANDLED);
    }

    fn fail(&mut self, offset: i64, error: HandlerError) -> Verdict {
        self.finish(offset, Outcome::Failed(error))
    }

    fn unavailable(&mut self, offset: i64) -> Verdict {
        self.fail(offset, HandlerError::unavailable("away"))
    }

    fn watermarks(&mut self) -> Vec<i64> {
        self.scheduler.new_watermarks().into_iter().map(|(_, _, offset)| offset).collect()
    }

    fn pauses(&mut self) -> Vec<(i32, bool)> {
        self.scheduler.pause_changes().into_iter().map(|(partition, _, pause)| (partition.number, pause)).collect()
    }
}
