//! The breaker: tells an outage that a handler takes for failures of its records. Where the latest attempts at most of
//! many keys have failed, it is not the records.
//!
//! ```text
//!          most of many keys fail
//!  closed ────────────────────────▶ open: their failures are an outage
//!     ▲                               │  one record at a time probes, each time another
//!     └────────── handled ────────────┤
//!                                     └ open for too long: a probe's failure is its record's again
//! ```
//!
//! It only judges; holding, probing and going on are those of an outage that the handler has named itself.
//!
//! Can it hold up poison for ever? Where a key is handled now and then, no: that closes it, and what failed on the way
//! to its next opening has used up attempts; none is given back. Where no key is handled at all, poison looks like an
//! outage, and so after [`BreakerLimits::patience`] failures count again, one probe after the other.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Lane, Partition};

/// When failures of records are taken for an outage of what their handler depends on. Both limits must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// So many keys, or records without a key, whose latest attempt has failed.
    pub at_least: u32,
    /// They are this part (0 to 100) or more of the keys that were tried last, twice `at_least` of them at most.
    pub percent: u32,
    /// What is older than this counts no more.
    pub window: Duration,
    /// Without a success for so long, failures of the records that probe use up attempts again.
    pub patience: Duration,
}

impl Default for BreakerLimits {
    /// Ten keys or more and 80 % of those of the last minute; patience for an hour.
    fn default() -> Self {
        let (window, patience) = (Duration::from_secs(60), Duration::from_secs(3600));
        BreakerLimits { at_least: 10, percent: 80, window, patience }
    }
}

/// The breakers of a consumer: one for each handler.
#[derive(Debug)]
pub(super) struct Breakers {
    limits: BreakerLimits,
    breakers: HashMap<usize, Breaker>,
}

#[derive(Debug)]
enum Breaker {
    Closed(Window),
    Open { since: Duration },
}

/// The latest outcome of the keys that were tried last.
#[derive(Debug, Default)]
struct Window {
    latest: HashMap<(Partition, Lane), Latest>,
    /// The same keys, in the order in which they were tried.
    order: BTreeMap<u64, (Duration, (Partition, Lane))>,
    noted: u64,
    failed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    number: u64,
    failed: bool,
}

impl Breakers {
    pub(super) fn new(limits: BreakerLimits) -> Breakers {
        Breakers { limits, breakers: HashMap::new() }
    }

    /// An attempt has failed in a way that blames its record; whether that is an outage all the same.
    pub(super) fn failed(&mut self, handler: usize, key: (Partition, Lane), now: Duration) -> bool {
        let breaker = self.breakers.entry(handler).or_insert_with(|| Breaker::Closed(Window::default()));
        match breaker {
            Breaker::Open { since } => now.saturating_sub(*since) < self.limits.patience,
            Breaker::Closed(window) => {
                window.note(key, true, now, &self.limits);
                let opens = window.is_outage(&self.limits);
                if opens {
                    *breaker = Breaker::Open { since: now };
                }
                opens
            }
        }
    }

    /// An attempt has succeeded, or found its record at fault.
    pub(super) fn not_failed(&mut self, handler: usize, key: impl FnOnce() -> (Partition, Lane), now: Duration) {
        // What passed before the first failure says nothing about now, and costs nothing.
        if let Some(Breaker::Closed(window)) = self.breakers.get_mut(&handler)
            && window.failed > 0
        {
            window.note(key(), false, now, &self.limits);
        }
    }

    /// An outage of this handler's dependency is over.
    pub(super) fn outage_ended(&mut self, handler: usize) {
        self.breakers.remove(&handler);
    }
}

impl Window {
    fn note(&mut self, key: (Partition, Lane), failed: bool, now: Duration, limits: &BreakerLimits) {
        if let Some(before) = self.latest.get(&key).copied() {
            self.forget(before.number);
        }
        self.noted += 1;
        self.latest.insert(key.clone(), Latest { number: self.noted, failed });
        self.order.insert(self.noted, (now, key));
        self.failed += u32::from(failed);
        let most = (limits.at_least as usize).saturating_mul(2);
        while let Some((number, (at, _))) = self.order.first_key_value()
            && (self.order.len() > most || *at + limits.window <= now)
        {
            self.forget(*number);
        }
    }

    fn forget(&mut self, number: u64) {
        let latest = self.order.remove(&number).and_then(|(_, key)| self.latest.remove(&key));
        self.failed -= u32::from(latest.is_some_and(|latest| latest.failed));
    }

    fn is_outage(&self, limits: &BreakerLimits) -> bool {
        let most = u64::from(self.failed) * 100 >= self.latest.len() as u64 * u64::from(limits.percent);
        self.failed >= limits.at_least && most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits = BreakerLimits {
        at_least: 10,
        percent: 80,
        window: Duration::from_secs(10),
        patience: Duration::from_secs(100),
    };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(number: i64) -> (Partition, Lane) {
        (Partition { topic: "t".into(), number: 0 }, Lane::Record(number))
    }

    /// Whether one of these keys' failures opens it.
    fn fail(breakers: &mut Breakers, keys: std::ops::Range<i64>, now: Duration) -> bool {
        keys.filter(|number| breakers.failed(0, key(*number), now)).count() > 0
    }

    fn handled(breakers: &mut Breakers, keys: std::ops::Range<i64>, now: Duration) {
        keys.for_each(|number| breakers.not_failed(0, || key(number), now));
    }

    #[test]
    fn as_many_keys_as_the_limit_open_it_however_often_fewer_fail() {
        let mut breakers = Breakers::new(LIMITS);
        for _ in 0..100 {
            assert!(!fail(&mut breakers, 0..9, s(0)));
        }
        assert!(!breakers.failed(1, key(9), s(0)), "another handler may depend on something else");
        assert!(fail(&mut breakers, 9..10, s(0)));
        assert!(breakers.failed(0, key(0), s(1)), "it stays open");
    }

    #[test]
    fn most_keys_must_fail() {
        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..1, s(0));
        handled(&mut breakers, 100..104, s(0));
        assert!(!fail(&mut breakers, 1..15, s(0)), "15 of 19 are 79 %");
        assert!(fail(&mut breakers, 15..16, s(0)));
    }

    #[test]
    fn what_counts_of_a_key_is_its_latest_outcome() {
        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..9, s(0));
        handled(&mut breakers, 0..2, s(0));
        assert!(!fail(&mut breakers, 9..11, s(0)), "nine of eleven");
        assert!(fail(&mut breakers, 0..1, s(0)), "ten of eleven");
    }

    #[test]
    fn old_outcomes_count_no_more() {
        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..9, s(0));
        assert!(!fail(&mut breakers, 9..10, s(10)), "the nine are ten seconds old");
        assert!(fail(&mut breakers, 10..19, s(19)));
    }

    #[test]
    fn successes_before_an_outage_do_not_delay_its_discovery() {
        let mut breakers = Breakers::new(LIMITS);
        handled(&mut breakers, 1000..2000, s(0));
        assert!(fail(&mut breakers, 0..10, s(0)));

        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..1, s(0));
        handled(&mut breakers, 1000..2000, s(0));
        assert!(fail(&mut breakers, 1..17, s(0)), "sixteen of the last twenty keys");

        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..1, s(0));
        handled(&mut breakers, 1000..2000, s(20));
        assert!(fail(&mut breakers, 1..11, s(20)), "the only failure was long past");
    }

    #[test]
    fn a_few_poison_keys_among_many_that_pass_never_open_it() {
        let mut breakers = Breakers::new(LIMITS);
        for round in 0..10 {
            for number in 0..1000 {
                if number % 100 == 0 {
                    // More poison keys than the limit, but never most of those tried last.
                    let poison = -1 - (number / 100) - (round % 2) * 10;
                    assert!(!breakers.failed(0, key(poison), s(0)));
                }
                breakers.not_failed(0, || key(number), s(0));
            }
        }
    }

    #[test]
    fn it_keeps_no_more_than_it_may_look_at() {
        let mut breakers = Breakers::new(BreakerLimits { percent: 101, ..LIMITS });
        for number in 0..10_000 {
            breakers.failed(0, key(number % 300), s(0));
            breakers.not_failed(0, || key(number % 7), s(0));
        }
        let Some(Breaker::Closed(window)) = breakers.breakers.get(&0) else { panic!("{breakers:?}") };
        assert_eq!((window.latest.len(), window.order.len()), (20, 20));
        let failed = window.latest.values().filter(|latest| latest.failed).count();
        assert_eq!(failed, window.failed as usize);
    }

    #[test]
    fn the_end_of_the_outage_closes_it_and_all_counts_anew() {
        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..10, s(0));
        handled(&mut breakers, 0..10, s(1));
        assert!(breakers.failed(0, key(10), s(1)), "whether a success ends the outage is not decided here");
        breakers.outage_ended(0);
        assert!(!fail(&mut breakers, 0..9, s(1)));
        assert!(fail(&mut breakers, 9..10, s(1)));
    }

    #[test]
    fn an_outage_that_never_ends_is_taken_for_poison_at_last() {
        let mut breakers = Breakers::new(LIMITS);
        fail(&mut breakers, 0..10, s(5));
        assert!(breakers.failed(0, key(0), s(104)));
        assert!(!breakers.failed(0, key(0), s(105)));
    }
}
