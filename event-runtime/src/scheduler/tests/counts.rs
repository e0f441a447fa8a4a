//! What the scheduler says of itself: to a drain that waits for attempts, to metrics, to the poll thread.

use super::*;
use crate::scheduler::Stall;

fn running_for(bench: &Bench, number: i32) -> Vec<Ticket> {
    let partition = partition(number);
    let mut tickets: Vec<_> = bench.scheduler.running_for(&partition).collect();
    tickets.sort_unstable();
    tickets
}

#[test]
fn attempts_are_told_of_by_partition_and_of_the_present_generation_only() {
    let mut bench = Bench::new(8);
    bench.scheduler.assign(partition(1), 4);
    let assigned: Vec<_> = bench.scheduler.assigned().map(|(partition, of)| (partition.number, of)).collect();
    assert_eq!(assigned, [(0, 1), (1, 4)]);
    assert_eq!(bench.scheduler.running(), 0);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    bench.scheduler.offer(&partition(1), 4, offer(70, "z"));
    assert_eq!(bench.start_all(), [0, 70, 1]);
    assert_eq!(running_for(&bench, 0), [bench.ticket(0), bench.ticket(1)]);
    assert_eq!(running_for(&bench, 1), [bench.ticket(70)]);
    assert_eq!(running_for(&bench, 2), []);
    assert_eq!(bench.scheduler.running(), 3);

    bench.scheduler.assign(partition(0), 2);
    assert_eq!(running_for(&bench, 0), [], "they were started for the generation before");
    assert_eq!(bench.scheduler.running(), 3, "and they run all the same");
    bench.handled(0);
    assert_eq!(bench.scheduler.running(), 2);
}

#[test]
fn a_drain_waits_for_the_attempts_of_its_partition() {
    let mut bench = Bench::new(8);
    bench.scheduler.assign(partition(1), 1);
    bench.offer(0, "a");
    bench.scheduler.offer(&partition(1), 1, offer(70, "z"));
    bench.start_all();
    for number in [0, 1] {
        bench.scheduler.stop(&partition(number));
        assert!(bench.scheduler.is_draining(&partition(number)));
    }
    bench.handled(70);
    assert!(bench.scheduler.is_draining(&partition(0)) && !bench.scheduler.is_draining(&partition(1)));
    bench.handled(0);
    assert!(!bench.scheduler.is_draining(&partition(0)));
}

#[test]
fn lanes_that_wait_for_a_retry_or_a_dependency_are_blocked() {
    let mut bench = Bench::running(&[(0, "a"), (1, "b"), (2, "b"), (3, "c"), (4, "d")]);
    assert_eq!(bench.scheduler.blocked_lanes(), 0);
    bench.unavailable(0);
    assert_eq!(bench.scheduler.blocked_lanes(), 1);
    bench.fail(1, HandlerError::retry("no"));
    assert_eq!(bench.scheduler.blocked_lanes(), 2, "the record behind the retry is of its lane");
    bench.unavailable(3);
    assert_eq!(bench.scheduler.blocked_lanes(), 3);
}

#[test]
fn paused_partitions_are_counted() {
    let mut bench = Bench::with(Limits { concurrency: 8, records: 100, bytes: 60 });
    for number in [1, 2] {
        bench.scheduler.assign(partition(number), 1);
    }
    assert_eq!((bench.pauses(), bench.scheduler.paused()), (NO_CHANGE.to_vec(), 0));
    bench.offer(0, "a");
    assert_eq!((bench.pauses(), bench.scheduler.paused()), (NO_CHANGE.to_vec(), 0));
    bench.offer(1, "b");
    assert_eq!((bench.pauses(), bench.scheduler.paused()), (vec![(0, true)], 1), "each has twenty bytes");
    for offset in [70, 71] {
        bench.scheduler.offer(&partition(1), 1, offer(offset, ""));
    }
    assert_eq!((bench.pauses(), bench.scheduler.paused()), (vec![(1, true)], 2));
}

#[test]
fn what_is_to_come_next_follows_from_what_came_or_from_where_the_partition_began() {
    let mut bench = Bench::new(8);
    assert_eq!(bench.scheduler.next_to_come(&partition(1)), None, "not ours");
    assert_eq!(bench.scheduler.next_to_come(&partition(0)), Some(None), "not known yet");
    bench.scheduler.note_extent(&partition(0), 1, Extent { start: 5, end: 90 });
    assert_eq!(bench.scheduler.next_to_come(&partition(0)), Some(Some(5)));
    bench.offer(7, "a");
    assert_eq!(bench.scheduler.next_to_come(&partition(0)), Some(Some(8)));
}

#[test]
fn a_stall_is_the_same_while_nothing_comes_there_however_much_is_written() {
    let stall = Stall { partition: partition(0), generation: 1, position: 5, end: 9 };
    assert!(stall.is_same_as(&Stall { end: 12, ..stall.clone() }));
    assert!(!stall.is_same_as(&Stall { position: 6, ..stall.clone() }));
    assert!(!stall.is_same_as(&Stall { generation: 2, ..stall.clone() }));
    assert!(!stall.is_same_as(&Stall { partition: partition(1), ..stall.clone() }));
}

#[test]
fn a_partition_is_named_with_its_topic() {
    assert_eq!(partition(3).to_string(), "t[3]");
}
