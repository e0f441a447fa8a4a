//! What an outage costs those who met it, and when the next probe is due.

use super::*;

#[test]
fn what_started_before_a_record_met_the_outage_does_not_put_the_blame_on_it() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    bench.start_all();
    bench.unavailable(0);
    bench.offer(2, "c");
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [2]);
    bench.unavailable(1);
    assert_eq!(bench.finish(2, HANDLED), Verdict::Handled { outage_ended: Some(ms(100)) });
    assert_eq!(bench.start_all(), [0, 1]);
    assert_eq!(bench.unavailable(1), Verdict::Unavailable { began: true }, "it failed after 2 had started");
}

#[test]
fn after_a_probe_that_fails_by_its_record_the_next_one_waits_as_well() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    bench.start_all();
    bench.unavailable(0);
    bench.unavailable(1);
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [0]);
    bench.fail(0, HandlerError::reject("bad"));
    assert_eq!(bench.start_all(), [0], "its dead letter");
    bench.now = ms(199);
    assert_eq!(bench.start_all(), NONE);
    bench.now = ms(200);
    assert_eq!(bench.start_all(), [1]);
}

#[test]
fn a_probe_is_waited_for_only_where_somebody_is_held_and_none_runs() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, "a"), (1, "b")]);
    bench.start_all();
    bench.unavailable(0);
    assert_eq!(bench.scheduler.next_timer(), Some(ms(100)));
    bench.unavailable(1);
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [0]);
    assert_eq!(bench.scheduler.next_timer(), None, "its end comes first");
    bench.fail(0, HandlerError::reject("bad"));
    assert_eq!(bench.scheduler.next_timer(), Some(ms(200)));
    bench.now = ms(200);
    assert_eq!(bench.start_all(), [1, 0], "the dead letter of 0 as well");
    bench.fail(1, HandlerError::reject("bad"));
    assert_eq!(bench.scheduler.next_timer(), None, "nobody is held");
}
