//! One line when something goes away, one now and then while it is, and one when it is back, however many attempts fail in
//! between.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
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
    since: Mutex<Option<Since>>,
    waiting: Arc<Waiting>,
}

struct Since {
    began: Instant,
    said: Instant,
}

/// So that whoever reads the log of an outage that began hours ago finds it.
const SAID_AGAIN: Duration = Duration::from_secs(30);

impl Outage {
    pub fn of(what: &'static str, service: &'static str, waiting: Arc<Waiting>) -> Outage {
        Outage { what, service, since: Mutex::new(None), waiting }
    }

    /// It failed; says so if it worked before, or that was said long ago.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.began(&Chain(error).to_string());
    }

    /// As [`Outage::failed`], with a reason in words.
    pub fn began(&self, reason: &str) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (service, what, rows, in_hand) = (self.service, self.what, self.waiting.rows(), self.waiting.in_hand());
        match &mut *since {
            None => {
                *since = Some(Since { began: now, said: now });
                tracing::warn!(service, reason, rows, in_hand, "{what} is away; events wait in the outbox");
            }
            Some(since) if now - since.said >= SAID_AGAIN => {
                since.said = now;
                let seconds = (now - since.began).as_secs_f64();
                tracing::warn!(
                    service,
                    reason,
                    seconds,
                    rows,
                    in_hand,
                    "{what} is away still; events wait in the outbox"
                );
            }
            Some(_) => {}
        }
    }

    /// It worked; says so if it failed before.
    pub fn over(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Since { began, .. }) = since.take() {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(service = self.service, seconds, "{} is back; the outbox goes on", self.what);
        }
    }
}
