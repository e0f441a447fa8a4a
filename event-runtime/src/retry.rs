//! How often and how soon a failed record is tried again.

use std::time::Duration;

/// What happens to a record whose handler answered [`Retry`](crate::HandlerError::Retry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many retries follow the first attempt.
    pub limit: RetryLimit,
    /// Pause before the first retry; it doubles with every further one.
    pub initial_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
}

/// How many retries follow the first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryLimit {
    /// So many; then the record goes to the dead-letter topic.
    Limited(u32),
    /// As many as it takes: for work that must happen sooner or later.
    Unlimited,
}

/// How often a record may end its process whose failures are otherwise retried without end.
const UNLIMITED_CRASHES: u32 = 10;

impl RetryPolicy {
    /// `retries` retries after the first attempt, then the dead-letter topic.
    pub const fn limited(retries: u32) -> RetryPolicy {
        RetryPolicy {
            limit: RetryLimit::Limited(retries),
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
        }
    }

    /// Retries until it works.
    pub const fn unlimited() -> RetryPolicy {
        RetryPolicy { limit: RetryLimit::Unlimited, ..RetryPolicy::limited(0) }
    }

    /// The same policy with other pauses.
    pub const fn backoff(self, initial: Duration, max: Duration) -> RetryPolicy {
        RetryPolicy { initial_backoff: initial, max_backoff: max, ..self }
    }

    /// Whether attempt number `attempt` (from 1) is the last one.
    pub const fn is_last(&self, attempt: u32) -> bool {
        match self.limit {
            RetryLimit::Limited(retries) => attempt > retries,
            RetryLimit::Unlimited => false,
        }
    }

    /// Whether a record is given up that has ended its process `crashes` times: each was an attempt. There is an end to
    /// retries without a limit, too: everything else would stand still for such a record.
    pub const fn gives_up_after_crashes(&self, crashes: u32) -> bool {
        match self.limit {
            RetryLimit::Limited(_) => self.is_last(crashes),
            RetryLimit::Unlimited => crashes >= UNLIMITED_CRASHES,
        }
    }

    /// The pause after failed attempt `attempt` (from 1): exponential with equal jitter, that is half of
    /// `min(max, initial · 2^(attempt − 1))` plus `random` (0 to 1) times the other half.
    pub fn pause_after(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.initial_backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        full / 2 + (full / 2).mul_f64(random.clamp(0.0, 1.0))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy::limited(3)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RetryPolicy;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_half_of_each_is_jitter() {
        let policy = RetryPolicy::limited(9).backoff(ms(100), ms(1000));
        let cases = [(1, 50, 100), (2, 100, 200), (4, 400, 800), (5, 500, 1000), (u32::MAX, 500, 1000)];
        for (attempt, shortest, longest) in cases {
            assert_eq!(policy.pause_after(attempt, 0.0), ms(shortest), "after attempt {attempt}");
            assert_eq!(policy.pause_after(attempt, 1.0), ms(longest), "after attempt {attempt}");
        }
    }

    #[test]
    fn the_last_attempt_follows_the_last_retry() {
        assert!(RetryPolicy::limited(0).is_last(1));
        assert!(!RetryPolicy::limited(3).is_last(3));
        assert!(RetryPolicy::limited(3).is_last(4));
        assert!(!RetryPolicy::unlimited().is_last(u32::MAX));
    }
}
