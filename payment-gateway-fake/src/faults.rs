//! Faults on demand: away, slow, limited. They can be changed while the gateway runs.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Faults {
    pub fn new(config: &Config) -> Faults {
        let delay_ms = config.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let at_start = Setting { mode: Mode::Up, delay_ms, max_rps: config.max_rps };
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
        };
        *self.lock() = Now::with(setting);
        setting
    }

    pub fn is_down(&self) -> bool {
        self.get().mode == Mode::Down
    }

    /// Lets a charge or refund in, and says how long it is to take.
    pub fn admit(&self) -> Result<Duration, Refusal> {
        let mut now = self.lock();
        if now.setting.mode == Mode::Down {
            return Err(Refusal::Down);
        }
        if let Some(bucket) = &mut now.bucket {
            bucket.take(Instant::now()).map_err(Refusal::Limited)?;
        }
        Ok(Duration::from_millis(now.setting.delay_ms.unwrap_or(0)))
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        // Nothing in here can be left half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn with(setting: Setting) -> Now {
        Now { setting, bucket: setting.max_rps.map(|rate| Bucket::new(rate, Instant::now())) }
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
        assert_eq!(faults.admit(), Ok(SLOW));
        faults.set(Setting { mode: Mode::Slow, delay_ms: Some(20), ..Setting::default() });
        assert_eq!(faults.admit(), Ok(Duration::from_millis(20)));
        faults.set(Setting::default());
        assert_eq!(faults.admit(), Ok(Duration::ZERO));
    }
}
