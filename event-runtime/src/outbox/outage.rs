//! One line when something goes away and one when it is back, however many attempts fail in between.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::error::Chain;

/// Whether something is away at the moment.
pub(super) struct Outage {
    /// What is away, such as "Kafka".
    what: &'static str,
    service: &'static str,
    since: Mutex<Option<Instant>>,
}

impl Outage {
    pub fn of(what: &'static str, service: &'static str) -> Outage {
        Outage { what, service, since: Mutex::new(None) }
    }

    /// It failed; says so if it worked before.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.began(&Chain(error).to_string());
    }

    /// As [`Outage::failed`], with a reason in words.
    pub fn began(&self, reason: &str) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            *since = Some(Instant::now());
            tracing::warn!(service = self.service, reason, "{} is away; events wait in the outbox", self.what);
        }
    }

    /// It worked; says so if it failed before.
    pub fn over(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(began) = since.take() {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(service = self.service, seconds, "{} is back; the outbox goes on", self.what);
        }
    }
}
