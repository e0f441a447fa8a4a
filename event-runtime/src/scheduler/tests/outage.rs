//! What an outage holds, what it costs those who met it, and when the next probe is due.

use super::*;

#[test]
fn an_outage_holds_one_handler_probes_one_at_a_time_and_rotates() {
    let mut bench = Bench::new(8);
    bench.offer_all(&[(0, "a"), (1, "b"), (2, "c")]);
    bench.scheduler.offer(&partition(0), 1, Offer { handler: 9, ..offer(3, "d") });
    bench.start_all();
    assert_eq!(bench.unavailable(0), Verdict::Unavailable { began: true });
    assert_eq!(bench.unavailable(1), Verdict::Unavailable { began: false });
    assert_eq!(bench.unavailable(2), Verdict::Unavailable { began: false });
    bench.handled(3);
    bench.scheduler.offer(&partition(0), 1, Offer { handler: 9, ..offer(4, "d") });
    assert_eq!(bench.start_all(), [4], "another handler is not concerned");
    bench.now = ms(100);
    assert_eq!(bench.start_all(), [0]);
    bench.unavailable(0);
    bench.now = ms(299);
    assert_eq!(bench.start_all(), NONE, "the pause between probes doubles");
    bench.now = ms(300);
    assert_eq!(bench.start_all(), [1]);
    assert_eq!(bench.started(1).attempt, 1, "no attempt was used up");
    assert_eq!(bench.finish(1, HANDLED), Verdict::Handled { outage_ended: Some(ms(300)) });
    assert_eq!(bench.start_all(), [2, 0]);
}

#[test]
fn a_duplicate_does_not_end_an_outage() {
    let mut bench = Bench::running(&[(0, "a"), (1, "b")]);
    bench.unavailable(0);
    bench.unavailable(1);
    bench.now = ms(100);
    bench.start_all();
    let duplicate = Outcome::Handled { proves_dependency: false };
    assert_eq!(bench.finish(0, duplicate), Verdict::Handled { outage_ended: None });
    assert_eq!(bench.start_all(), [1], "the next one probes at once");
}

#[test]
fn a_record_that_is_unavailable_while_others_pass_uses_up_its_attempts() {
    let mut bench = Bench::running(&[(0, "bad"), (1, "good")]);
    bench.unavailable(0);
    bench.now = ms(100);
    bench.offer(2, "good");
    bench.handled(1);
    // Success of what had started before the outage proves nothing.
    assert_eq!(bench.start_all(), [2], "who has not met the outage probes first");
    bench.handled(2);
    assert_eq!(bench.start_all(), [0]);
    assert!(matches!(bench.unavailable(0), Verdict::Retry { .. }));
    bench.now = ms(1000);
    bench.offer(3, "good");
    assert_eq!(bench.start_all(), [3, 0]);
    assert_eq!(bench.started(0).attempt, 2);
    bench.handled(3);
    assert_eq!(bench.unavailable(0), Verdict::Bury);
}

#[test]
fn what_started_before_a_record_met_the_outage_does_not_put_the_blame_on_it() {
    let mut bench = Bench::running(&[(0, "a"), (1, "b")]);
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
    let mut bench = Bench::running(&[(0, "a"), (1, "b")]);
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
    let mut bench = Bench::running(&[(0, "a"), (1, "b")]);
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
