//! Which records share a transaction.

use super::*;

#[test]
fn what_is_ready_shares_a_transaction_and_the_records_of_a_key_come_in_their_order() {
    let mut bench = Bench::batching(4, false);
    bench.offer_all(&[(0, "a"), (1, "a"), (2, "b"), (3, ""), (4, "a"), (5, "c"), (6, "d")]);
    assert_eq!(bench.start_batches(), [vec![0, 1, 4, 2], vec![3, 5, 6]]);
    assert!(bench.scheduler.inspect(b"a").iter().all(|in_hand| in_hand.state == State::Running));
    bench.offer(7, "a");
    assert_eq!(bench.start_all(), NONE, "its key is in a batch");
    bench.handled_all(&[0, 1, 4]);
    assert_eq!(bench.watermarks(), [2]);
    assert_eq!(bench.start_all(), [7]);
}

#[test]
fn a_batch_counts_as_one() {
    let mut bench = Bench::batching(2, false);
    bench.scheduler.limits.concurrency = 2;
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]);
    assert_eq!(bench.start_batches(), [[0, 1], [2, 3]]);
    bench.handled(0);
    assert_eq!(bench.start_batches(), NO_BATCH, "the first runs until all of it has ended");
    bench.handled(1);
    assert_eq!(bench.start_batches(), [[4]]);
}

#[test]
fn partitions_take_turns_within_a_batch() {
    let mut bench = Bench::batching(4, false);
    bench.scheduler.assign(partition(1), 1);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c"), (3, "d")]);
    for offset in [70, 71] {
        bench.scheduler.offer(&partition(1), 1, offer(offset, &offset.to_string()));
    }
    assert_eq!(bench.start_batches(), [vec![0, 70, 1, 71], vec![2, 3]]);
}

#[test]
fn partitions_that_cannot_join_a_batch_keep_their_turns() {
    let mut bench = Bench::batching(4, false);
    bench.offer(0, "a");
    for number in [1, 2] {
        bench.scheduler.assign(partition(number), 1);
        bench.scheduler.offer(&partition(number), 1, Offer { shares: false, ..offer(i64::from(number) * 70, "z") });
    }
    assert_eq!(bench.start_batches(), [[0], [70], [140]]);
}

#[test]
fn after_a_batch_that_was_rolled_back_each_record_runs_alone_and_has_used_up_no_attempt() {
    let mut bench = Bench::batching(8, false);
    bench.offer_all(&[(0, "a"), (1, "a"), (2, "b"), (3, "a")]);
    assert_eq!(bench.start_batches(), [[0, 1, 3, 2]]);
    for offset in [0, 1, 3, 2] {
        assert_eq!(bench.finish(offset, Outcome::RolledBack), Verdict::Alone);
    }
    bench.offer_all(&[(4, "c"), (5, "d")]);
    assert_eq!(bench.start_batches(), [vec![0], vec![2], vec![4, 5]], "beside a batch of others");
    assert_eq!(bench.started(0).attempt, 1);
    assert_eq!(bench.watermarks(), NONE);
    bench.fail(0, HandlerError::retry("no"));
    bench.now = ms(50);
    bench.offer(6, "e");
    assert_eq!(bench.start_batches(), [[6], [0]], "a retry joins no batch");
    bench.handled(0);
    assert_eq!(bench.start_batches(), [[1]]);
}

#[test]
fn what_shares_no_transaction_and_what_probes_joins_no_batch() {
    let mut bench = Bench::batching(8, false);
    bench.scheduler.offer(&partition(0), 1, Offer { shares: false, ..offer(0, "a") });
    bench.offer_all(&[(1, "b"), (2, "c")]);
    assert_eq!(bench.start_batches(), [vec![0], vec![1, 2]]);
    for offset in [1, 2] {
        bench.finish(offset, Outcome::RolledBack);
    }
    assert_eq!(bench.start_batches(), [[1], [2]]);
    for offset in [1, 2] {
        bench.unavailable(offset);
    }
    bench.offer_all(&[(3, "d"), (4, "e")]);
    bench.now = ms(100);
    assert_eq!(bench.start_batches(), [[3]], "the outage is probed by one record");
    bench.handled(3);
    assert_eq!(bench.start_batches(), [[1], [2], [4]]);
}

#[test]
fn batches_grow_while_they_are_fast_and_shrink_when_they_are_slow_or_fail() {
    let mut bench = Bench::new(100);
    bench.scheduler = Scheduler::new(bench.scheduler.limits).batching(8, false);
    bench.scheduler.assign(partition(0), 1);
    let mut offset = 0;
    let mut sizes = Vec::new();
    for took in [1, 20, 1, 40, 1, 0, 400, 400, 400] {
        for _ in 0..16 {
            bench.offer(offset, "");
            offset += 1;
        }
        let size = bench.start_batches()[0].len();
        sizes.push(size);
        match took {
            0 => bench.scheduler.batch_failed(),
            _ => bench.scheduler.batch_committed(size, ms(took)),
        }
        bench.finish_all();
    }
    assert_eq!(sizes, [2, 4, 8, 8, 4, 8, 4, 2, 1]);
}

#[test]
fn after_fifty_transactions_of_one_record_two_are_tried_again() {
    let mut bench = Bench::new(100);
    bench.scheduler = Scheduler::new(bench.scheduler.limits).batching(8, false);
    bench.scheduler.assign(partition(0), 1);
    bench.scheduler.batch_failed();
    for offset in 0..52 {
        bench.offer(offset, "");
    }
    let sizes: Vec<_> = bench.start_batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [vec![1; 49], vec![2, 1]].concat());
}

/// The sizes of the batches in which four records start that come at that time.
fn sizes_at(bench: &mut Bench, now: Duration) -> Vec<usize> {
    bench.now = now;
    for offset in (0..).skip(bench.started.len()).take(4) {
        bench.offer(offset, "");
    }
    let sizes = bench.start_batches().iter().map(Vec::len).collect();
    bench.finish_all();
    // What waited for these.
    bench.start_batches();
    bench.finish_all();
    sizes
}

fn contend(bench: &mut Bench) {
    let last = bench.started.last().expect("a batch has run").ticket;
    bench.scheduler.batch_contended(last);
}

#[test]
fn the_relief_after_contention_lasts_longer_each_time_until_there_was_none_for_as_long() {
    let mut bench = Bench::batching(2, true);
    let s = Duration::from_secs;
    let mut began = s(0);
    for relief in [10, 20, 40, 80, 160, 320, 600, 600].map(s) {
        assert_eq!(sizes_at(&mut bench, began), [2, 2]);
        contend(&mut bench);
        assert_eq!(sizes_at(&mut bench, began + relief - ms(1)), [2], "one at a time");
        // It comes back as soon as that is over: with several at a time, so nobody else is to blame.
        began += relief;
    }
    began += s(600);
    assert_eq!(sizes_at(&mut bench, began), [2, 2]);
    contend(&mut bench);
    assert_eq!(sizes_at(&mut bench, began + s(9)), [2]);
    assert_eq!(sizes_at(&mut bench, began + s(10)), [2, 2], "forgotten after another ten minutes");
}

#[test]
fn after_contention_one_transaction_runs_at_a_time_and_if_that_does_not_help_each_record_alone() {
    let mut bench = Bench::batching(2, true);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c"), (3, "d")]);
    assert_eq!(bench.start_batches(), [[0, 1], [2, 3]]);
    for first in [0, 2] {
        bench.scheduler.batch_contended(bench.ticket(first));
    }
    bench.finish_all();
    bench.offer_all(&[(4, "e"), (5, "f"), (6, "g"), (7, "h"), (8, "i")]);
    assert_eq!(bench.start_batches(), [[4, 5]], "the others wait for these, although they would fill a batch");
    bench.now = ms(999);
    assert_eq!(bench.start_batches(), NO_BATCH);
    let other = bench.ticket(4);
    bench.finish_all();
    assert_eq!(bench.start_batches(), [[6, 7]]);

    bench.scheduler.batch_contended(other);
    bench.finish_all();
    bench.offer(9, "j");
    assert_eq!(bench.start_batches(), [[8], [9]], "it is another process");
    bench.finish_all();
    bench.now += Duration::from_secs(19);
    bench.offer_all(&[(10, "a"), (11, "b")]);
    assert_eq!(bench.start_batches(), [[10], [11]], "for twice as long as the first time");
    bench.finish_all();
    bench.now += Duration::from_secs(1);
    bench.offer_all(&[(12, "a"), (13, "b")]);
    assert_eq!(bench.start_batches(), [[12, 13]]);
}

#[test]
fn what_comes_while_a_transaction_runs_waits_for_it_a_little_or_for_a_full_batch() {
    let mut bench = Bench::batching(3, true);
    bench.offer(0, "a");
    assert_eq!(bench.start_batches(), [[0]], "nothing runs: at once");
    bench.offer(1, "b");
    assert_eq!(bench.start_batches(), NO_BATCH);
    assert_eq!(bench.scheduler.next_timer(), Some(ms(20)));
    bench.offer_all(&[(2, "c"), (3, "d")]);
    assert_eq!(bench.start_batches(), [[1, 2, 3]], "a full batch waits for nothing");
    bench.offer(4, "e");
    bench.now = ms(19);
    assert_eq!(bench.start_batches(), NO_BATCH);
    bench.now = ms(20);
    assert_eq!(bench.start_batches(), [[4]], "nor does anything wait for long");
    bench.offer(5, "f");
    bench.finish_all();
    assert_eq!(bench.start_batches(), [[5]], "nothing runs any more");
}
