//! The guard against a flood of dead letters: when most records cannot be handled, it is not the records.
//!
//! ```text
//!             too many dead letters            cool-down over
//!  watching ─────────────────────────▶ stopped ──────────────▶ probing
//!     ▲                                   ▲ dead letter: longer   │  one record at a time
//!     │                                   └───────────────────────┤
//!     └────────────────────────── handled ────────────────────────┘
//! ```

use std::{collections::VecDeque, time::Duration};

const WINDOW: Duration = Duration::from_secs(60);
/// What has trouble again so soon after it went on is stopped for longer.
const RELAPSE: Duration = Duration::from_secs(600);
/// How often a cool-down doubles at most: 16 times the first.
const DOUBLINGS: u32 = 4;

/// How many dead letters of a consumer are too many. Either limit alone is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// More dead letters than this within a minute.
    pub per_minute: u32,
    /// Dead letters are more than this part (0 to 100) of the records of the last minute.
    pub percent: u32,
    /// The part says nothing before there are so many dead letters.
    pub at_least: u32,
    /// How long nothing is handled before one record is tried. Doubled, up to 16 times this, while that fails.
    pub cool_down: Duration,
}

impl Default for FloodLimits {
    /// More than half of a minute's records with 100 dead letters or more, or more than 6,000 whatever their part; a
    /// cool-down of a minute.
    fn default() -> Self {
        FloodLimits { per_minute: 6000, percent: 50, at_least: 100, cool_down: Duration::from_secs(60) }
    }
}

/// A flood that has stopped a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// How many dead letters there were in the minute before it was stopped.
    pub dead_letters: u32,
    /// How many records were handled or dead-lettered in that minute.
    pub records: u32,
    /// How many records in a row have been tried since and were dead letters as well.
    pub failed_probes: u32,
}

#[derive(Debug)]
pub(super) struct FloodGuard {
    limits: FloodLimits,
    /// Outcomes by second, the oldest first, as old as [`WINDOW`] at most.
    window: VecDeque<Second>,
    /// Their sums.
    dead_letters: u32,
    records: u32,
    stage: Stage,
    /// When it last went on, and how long the cool-down was that had ended then.
    resumed: Option<(Duration, u32)>,
}

#[derive(Debug)]
struct Second {
    number: u64,
    dead_letters: u32,
    records: u32,
}

#[derive(Debug)]
enum Stage {
    Watching,
    Stopped { until: Duration, doublings: u32, flood: Flood },
    Probing { doublings: u32, flood: Flood },
}

impl FloodGuard {
    pub(super) fn new(limits: FloodLimits) -> FloodGuard {
        let window = VecDeque::new();
        FloodGuard { limits, window, dead_letters: 0, records: 0, stage: Stage::Watching, resumed: None }
    }

    /// Whether an attempt may start beside `running` others.
    pub(super) fn may_start(&self, running: usize) -> bool {
        match self.stage {
            Stage::Watching => true,
            Stage::Stopped { .. } => false,
            Stage::Probing { .. } => running == 0,
        }
    }

    /// Whether to read nothing more.
    pub(super) fn pauses(&self) -> bool {
        matches!(self.stage, Stage::Stopped { .. })
    }

    pub(super) fn flood(&self) -> Option<Flood> {
        match self.stage {
            Stage::Watching => None,
            Stage::Stopped { flood, .. } | Stage::Probing { flood, .. } => Some(flood),
        }
    }

    pub(super) fn next_timer(&self) -> Option<Duration> {
        match self.stage {
            Stage::Stopped { until, .. } => Some(until),
            Stage::Watching | Stage::Probing { .. } => None,
        }
    }

    pub(super) fn advance(&mut self, now: Duration) {
        if let Stage::Stopped { until, doublings, flood } = self.stage
            && until <= now
        {
            self.stage = Stage::Probing { doublings, flood };
        }
    }

    /// A record was handled.
    pub(super) fn handled(&mut self, now: Duration) {
        match self.stage {
            Stage::Watching => self.count(now, 0),
            // Its attempt had begun before.
            Stage::Stopped { .. } => {}
            Stage::Probing { doublings, .. } => {
                self.window.clear();
                (self.dead_letters, self.records) = (0, 0);
                self.resumed = Some((now, doublings));
                self.stage = Stage::Watching;
            }
        }
    }

    /// A record was written to its dead-letter topic.
    pub(super) fn dead_lettered(&mut self, now: Duration) {
        match self.stage {
            Stage::Watching => {
                self.count(now, 1);
                if self.is_flood() {
                    let relapse = self.resumed.filter(|(at, _)| now.saturating_sub(*at) < RELAPSE);
                    let doublings = relapse.map_or(0, |(_, doublings)| doublings + 1);
                    let flood = Flood { dead_letters: self.dead_letters, records: self.records, failed_probes: 0 };
                    self.stop(now, doublings, flood);
                }
            }
            Stage::Stopped { .. } => {}
            Stage::Probing { doublings, flood } => {
                self.stop(now, doublings + 1, Flood { failed_probes: flood.failed_probes + 1, ..flood });
            }
        }
    }

    fn stop(&mut self, now: Duration, doublings: u32, flood: Flood) {
        let doublings = doublings.min(DOUBLINGS);
        let until = now + self.limits.cool_down.saturating_mul(1 << doublings);
        self.stage = Stage::Stopped { until, doublings, flood };
    }

    fn count(&mut self, now: Duration, dead_letters: u32) {
        let number = now.as_secs();
        while self.window.front().is_some_and(|second| second.number + WINDOW.as_secs() <= number) {
            let old = self.window.pop_front().expect("there is a first one");
            self.dead_letters -= old.dead_letters;
            self.records -= old.records;
        }
        match self.window.back_mut() {
            Some(second) if second.number == number => {
                second.dead_letters += dead_letters;
                second.records += 1;
            }
            _ => self.window.push_back(Second { number, dead_letters, records: 1 }),
        }
        self.dead_letters += dead_letters;
        self.records += 1;
    }

    fn is_flood(&self) -> bool {
        let FloodLimits { per_minute, percent, at_least, .. } = self.limits;
        let most = u64::from(self.dead_letters) * 100 > u64::from(self.records) * u64::from(percent);
        self.dead_letters > per_minute || (self.dead_letters >= at_least && most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FloodLimits =
        FloodLimits { per_minute: 50, percent: 50, at_least: 10, cool_down: Duration::from_secs(30) };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn guard() -> FloodGuard {
        FloodGuard::new(LIMITS)
    }

    fn dead_letters(guard: &mut FloodGuard, count: u32, now: Duration) {
        (0..count).for_each(|_| guard.dead_lettered(now));
    }

    fn handled(guard: &mut FloodGuard, count: u32, now: Duration) {
        (0..count).for_each(|_| guard.handled(now));
    }

    #[test]
    fn a_flood_is_most_of_the_records_but_not_of_a_few() {
        let mut guard = guard();
        dead_letters(&mut guard, 9, s(0));
        assert!(guard.may_start(5), "nine of nine are too few to say");
        handled(&mut guard, 10, s(1));
        dead_letters(&mut guard, 1, s(2));
        assert!(guard.may_start(5), "ten of twenty are not more than half");
        dead_letters(&mut guard, 1, s(3));
        assert!(!guard.may_start(0) && guard.pauses());
        assert_eq!(guard.flood(), Some(Flood { dead_letters: 11, records: 21, failed_probes: 0 }));
    }

    #[test]
    fn a_flood_is_also_a_great_number_whatever_its_part() {
        let mut guard = guard();
        handled(&mut guard, 100_000, s(0));
        dead_letters(&mut guard, 50, s(1));
        assert!(guard.may_start(5));
        dead_letters(&mut guard, 1, s(1));
        assert!(!guard.may_start(0));
    }

    #[test]
    fn what_is_older_than_a_minute_counts_no_more() {
        let mut guard = guard();
        for minute in 0..10 {
            dead_letters(&mut guard, 9, s(minute * 60));
        }
        assert!(guard.may_start(5));
        dead_letters(&mut guard, 1, s(599));
        assert!(!guard.may_start(0), "ten within a minute");
    }

    #[test]
    fn each_second_grows_old_by_itself() {
        let mut guard = guard();
        dead_letters(&mut guard, 4, s(0));
        dead_letters(&mut guard, 5, s(30));
        dead_letters(&mut guard, 4, s(60));
        assert!(guard.may_start(5), "nine within a minute");
        dead_letters(&mut guard, 1, s(61));
        assert!(!guard.may_start(0));

        let mut guard = self::guard();
        handled(&mut guard, 1000, s(0));
        dead_letters(&mut guard, 10, s(60));
        assert_eq!(guard.flood(), Some(Flood { dead_letters: 10, records: 10, failed_probes: 0 }));
        assert_eq!(guard.window.len(), 1, "however many records a second has");
    }

    #[test]
    fn after_the_cool_down_one_record_at_a_time_is_tried_until_one_is_handled() {
        let mut guard = guard();
        dead_letters(&mut guard, 10, s(0));
        assert_eq!(guard.next_timer(), Some(s(30)));
        handled(&mut guard, 1, s(1));
        dead_letters(&mut guard, 1, s(1));
        guard.advance(s(29));
        assert!(!guard.may_start(0), "what had begun before proves nothing, either way");
        guard.advance(s(30));
        assert!(guard.may_start(0) && !guard.may_start(1) && !guard.pauses());
        assert!(guard.flood().is_some(), "until it is over");
        handled(&mut guard, 1, s(31));
        assert!(guard.may_start(5));
        assert_eq!((guard.flood(), guard.next_timer()), (None, None));
        dead_letters(&mut guard, 9, s(32));
        assert!(guard.may_start(5), "the minute before counts no more");
    }

    #[test]
    fn a_flood_that_goes_on_is_tried_less_and_less_often() {
        let mut guard = guard();
        dead_letters(&mut guard, 10, s(0));
        let mut pauses = Vec::new();
        let mut now = s(0);
        for _ in 0..6 {
            let until = guard.next_timer().unwrap();
            pauses.push((until - now).as_secs());
            now = until;
            guard.advance(now);
            dead_letters(&mut guard, 1, now);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 480]);
        assert_eq!(guard.flood().unwrap().failed_probes, 6);

        now = guard.next_timer().unwrap();
        guard.advance(now);
        handled(&mut guard, 1, now);
        dead_letters(&mut guard, 10, now + s(1));
        assert_eq!(guard.next_timer().unwrap() - now, s(481), "again, soon after it went on");
        now = guard.next_timer().unwrap();
        guard.advance(now);
        handled(&mut guard, 1, now);
        dead_letters(&mut guard, 10, now + s(600));
        assert_eq!(guard.next_timer().unwrap() - now, s(630), "another flood, much later");
    }

    #[test]
    fn a_flood_that_comes_back_is_stopped_for_twice_as_long() {
        let mut guard = guard();
        dead_letters(&mut guard, 10, s(0));
        guard.advance(s(30));
        handled(&mut guard, 1, s(30));
        dead_letters(&mut guard, 10, s(629));
        assert_eq!(guard.next_timer(), Some(s(629 + 60)));
    }
}
