//! Faults on demand: away, slow, limited, failing. They can be changed while the gateway runs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Config;

/// How slow `slow` is when nobody says.
const SLOW: Duration = Duration::from_secs(3);

/// Whether the gateway answers, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It works.
    #[default]
    Up,
    /// It answers everything with 503.
    Down,
    /// Charges and refunds take their time.
    Slow,
}

/// The faults as `PUT /faults` sets them. What is left out is as it was at the start; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// Whether it answers.
    pub mode: Mode,
    /// How long a charge or refund takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Charges and refunds a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rps: Option<u32>,
    /// Which share of charges and refunds fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<Rate>,
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

impl TryFrom<f64> for Rate {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Rate, Self::Error> {
        if (0.0..=1.0).contains(&share) { Ok(Rate(share)) } else { Err("a failure rate is from 0 to 1") }
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> f64 {
        rate.0
    }
}

/// How a charge or refund that was let in goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// How long it is to take.
    pub delay: Duration,
    /// Whether it is to fail.
    pub failure: Option<Failure>,
}

/// How a request fails, with the same answer: the caller cannot tell which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was done.
    Before,
    /// It was carried out, and the answer is lost.
    After,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The gateway is down.
    Down,
    /// Too many requests; there is room again after this time.
    Limited(Duration),
}

/// The faults that are set now.
pub struct Faults {
    at_start: Setting,
    now: Mutex<Now>,
}

struct Now {
    setting: Setting,
    bucket: Option<Bucket>,
    failures: Option<Failures>,
}

impl Faults {
    pub fn new(config: &Config) -> Faults {
        let delay_ms = config.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let at_start = Setting { delay_ms, max_rps: config.max_rps, ..Setting::default() };
        Faults { at_start, now: Mutex::new(Now::with(at_start)) }
    }

    pub fn get(&self) -> Setting {
        self.lock().setting
    }

    /// Replaces the faults; returns what holds now.
    pub fn set(&self, wanted: Setting) -> Setting {
        let slow = (wanted.mode == Mode::Slow).then_some(SLOW.as_secs() * 1000);
        let setting = Setting {
            mode: wanted.mode,
            delay_ms: wanted.delay_ms.or(slow).or(self.at_start.delay_ms).filter(|delay| *delay > 0),
            max_rps: wanted.max_rps.or(self.at_start.max_rps).filter(|rate| *rate > 0),
            failure_rate: wanted.failure_rate.filter(|rate| rate.0 > 0.0),
        };
        *self.lock() = Now::with(setting);
        setting
    }

    pub fn is_down(&self) -> bool {
        self.get().mode == Mode::Down
    }

    /// Lets a charge or refund in, and says how it goes on.
    pub fn admit(&self) -> Result<Admission, Refusal> {
        let mut now = self.lock();
        if now.setting.mode == Mode::Down {
            return Err(Refusal::Down);
        }
        if let Some(bucket) = &mut now.bucket {
            bucket.take(Instant::now()).map_err(Refusal::Limited)?;
        }
        let failure = now.failures.as_mut().and_then(Failures::next);
        Ok(Admission { delay: Duration::from_millis(now.setting.delay_ms.unwrap_or(0)), failure })
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        // Nothing in here can be left half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn with(setting: Setting) -> Now {
        Now {
            setting,
            bucket: setting.max_rps.map(|rate| Bucket::new(rate, Instant::now())),
            failures: setting.failure_rate.map(Failures::new),
        }
    }
}

/// Spreads failures evenly over the requests, the first among them: what was seen once is seen again, and up to a rate of
/// 0.75 a caller gets through with its fourth attempt. By turns after and before the request was carried out.
struct Failures {
    rate: f64,
    /// Grows by the rate with every request; at 1 one fails.
    owed: f64,
    last: Failure,
}

impl Failures {
    fn new(rate: Rate) -> Failures {
        Failures { rate: rate.0, owed: 1.0 - rate.0, last: Failure::Before }
    }

    fn next(&mut self) -> Option<Failure> {
        // Ten tenths are a little less than 1.
        const ROUNDING: f64 = 1e-9;
        self.owed += self.rate;
        if self.owed < 1.0 - ROUNDING {
            return None;
        }
        self.owed -= 1.0;
        self.last = match self.last {
            Failure::Before => Failure::After,
            Failure::After => Failure::Before,
        };
        Some(self.last)
    }
}

/// A token bucket that holds the tokens of one second, so that callers who come back together after the whole second of
/// a Retry-After find room.
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Bucket {
        let rate = f64::from(rate);
        Bucket { rate, tokens: rate, filled: now }
    }

    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let grown = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + grown).min(self.rate);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_through() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        let mut taken = 0;
        for millisecond in 0..5_000 {
            if bucket.take(start + Duration::from_millis(millisecond)).is_ok() {
                taken += 1;
            }
        }
        // Ten at once from the full bucket, and ten a second.
        assert!((58..=60).contains(&taken), "{taken} were let through in 5 s at 10 a second");
    }

    #[test]
    fn an_empty_bucket_says_when_it_has_room() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, start);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert_eq!(bucket.take(start + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn what_a_setting_leaves_out_is_as_at_the_start() {
        let faults = Faults::new(&Config { max_rps: Some(50), ..Config::default() });
        faults.set(Setting { mode: Mode::Down, ..Setting::default() });
        assert_eq!(faults.admit(), Err(Refusal::Down));
        let up = faults.set(Setting::default());
        assert_eq!((up.mode, up.delay_ms, up.max_rps), (Mode::Up, None, Some(50)));
        let unlimited = faults.set(Setting { max_rps: Some(0), ..Setting::default() });
        assert_eq!(unlimited.max_rps, None);
    }

    #[test]
    fn slow_without_a_delay_takes_seconds() {
        let faults = Faults::new(&Config::default());
        faults.set(Setting { mode: Mode::Slow, ..Setting::default() });
        assert_eq!(faults.admit().map(|admission| admission.delay), Ok(SLOW));
        faults.set(Setting { mode: Mode::Slow, delay_ms: Some(20), ..Setting::default() });
        assert_eq!(faults.admit().map(|admission| admission.delay), Ok(Duration::from_millis(20)));
        faults.set(Setting::default());
        assert_eq!(faults.admit(), Ok(Admission { delay: Duration::ZERO, failure: None }));
    }

    #[test]
    fn a_failure_rate_is_kept_and_failures_are_spread_evenly() {
        for (rate, most_in_a_row) in [(0.0, 0), (0.1, 1), (0.3, 1), (0.5, 1), (0.75, 3), (1.0, 1000)] {
            let faults = Faults::new(&Config::default());
            faults.set(Setting { failure_rate: Some(Rate(rate)), ..Setting::default() });
            let failures: Vec<_> = (0..1000).map(|_| faults.admit().unwrap().failure).collect();
            let failed: Vec<_> = failures.iter().flatten().collect();
            assert!(failed.len().abs_diff((rate * 1000.0) as usize) <= 1, "{} of 1000 at {rate}", failed.len());
            let in_a_row = failures.split(Option::is_none).map(<[_]>::len).max();
            assert_eq!(in_a_row, Some(most_in_a_row), "at {rate}");
            let after = failed.iter().filter(|failure| ***failure == Failure::After).count();
            assert!(after.abs_diff(failed.len() - after) <= 1, "{after} of {} were carried out", failed.len());
        }
    }
}
