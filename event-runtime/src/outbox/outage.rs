//! One line when something goes away, one now and then while it is, and one when it is back, however many attempts fail in
//! between.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::waiting::Waiting;
use crate::error::Chain;

/// Whether something is away at the moment.
pub(super) struct Outage {
    /// What is away, such as "Kafka".
    what: &'static str,
    service: &'static str,
    course: Mutex<Course>,
    waiting: Arc<Waiting>,
}

/// Since when something has been away, and what of that has been said.
#[derive(Default)]
struct Course(Option<Since>);

struct Since {
    began: Instant,
    said: Instant,
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Away,
    /// It has been away so long.
    AwayStill(Duration),
}

/// So that whoever reads the log of an outage that began hours ago finds it.
const SAID_AGAIN: Duration = Duration::from_secs(30);

impl Course {
    fn failed(&mut self, now: Instant) -> Option<Notice> {
        match &mut self.0 {
            None => {
                self.0 = Some(Since { began: now, said: now });
                Some(Notice::Away)
            }
            Some(since) if now - since.said >= SAID_AGAIN => {
                since.said = now;
                Some(Notice::AwayStill(now - since.began))
            }
            Some(_) => None,
        }
    }

    /// How long it was away, if it was.
    fn over(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|since| now - since.began)
    }
}

impl Outage {
    pub fn of(what: &'static str, service: &'static str, waiting: Arc<Waiting>) -> Outage {
        Outage { what, service, course: Mutex::default(), waiting }
    }

    /// It failed; says so if it worked before, or that was said long ago.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.began(&Chain(error).to_string());
    }

    /// As [`Outage::failed`], with a reason in words.
    pub fn began(&self, reason: &str) {
        let (service, what, rows, in_hand) = (self.service, self.what, self.waiting.rows(), self.waiting.in_hand());
        let notice = self.course().failed(Instant::now());
        match notice {
            Some(Notice::Away) => {
                tracing::warn!(service, reason, rows, in_hand, "{what} is away; events wait in the outbox");
            }
            Some(Notice::AwayStill(since)) => {
                let seconds = since.as_secs_f64();
                tracing::warn!(
                    service,
                    reason,
                    seconds,
                    rows,
                    in_hand,
                    "{what} is away still; events wait in the outbox"
                );
            }
            None => {}
        }
    }

    /// It worked; says so if it failed before.
    pub fn over(&self) {
        let away = self.course().over(Instant::now());
        if let Some(away) = away {
            let seconds = away.as_secs_f64();
            tracing::info!(service = self.service, seconds, "{} is back; the outbox goes on", self.what);
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Outage {
    pub fn is_away(&self) -> bool {
        self.course().0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_away_from_a_failure_on_until_it_works() {
        let outage = Outage::of("the database", "test", Arc::default());
        outage.failed(&std::fmt::Error);
        assert!(outage.is_away());
        outage.over();
        assert!(!outage.is_away());
    }

    #[test]
    fn an_outage_is_said_when_it_begins_now_and_then_and_when_it_ends() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut course = Course::default();
        assert_eq!(course.over(at(0)), None);
        assert_eq!(course.failed(at(1)), Some(Notice::Away));
        assert_eq!(course.failed(at(2)), None);
        assert_eq!(course.failed(at(30)), None);
        assert_eq!(course.failed(at(31)), Some(Notice::AwayStill(Duration::from_secs(30))));
        assert_eq!(course.failed(at(60)), None);
        assert_eq!(course.failed(at(62)), Some(Notice::AwayStill(Duration::from_secs(61))));
        assert_eq!(course.over(at(63)), Some(Duration::from_secs(62)));
        assert_eq!(course.over(at(64)), None);
        assert_eq!(course.failed(at(65)), Some(Notice::Away));
    }
}
