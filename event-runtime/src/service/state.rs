use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    Database,
    http::{Operations, Problem},
    telemetry::metrics::Metrics,
};

/// What a running service tells about itself.
pub(super) struct State {
    name: &'static str,
    database: Database,
    metrics: Metrics,
    phase: Mutex<Phase>,
}

/// How far the service has come.
enum Phase {
    /// Waiting for this, in words.
    Starting(String),
    Running,
    Stopping,
}

impl State {
    pub(super) fn new(name: &'static str, database: Database, metrics: Metrics) -> State {
        State { name, database, metrics, phase: Mutex::new(Phase::Starting("starting".to_owned())) }
    }

    pub(super) fn waiting_for(&self, what: impl Into<String>) {
        *self.phase() = Phase::Starting(what.into());
    }

    pub(super) fn ready(&self) {
        *self.phase() = Phase::Running;
    }

    pub(super) fn stopping(&self) {
        *self.phase() = Phase::Stopping;
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reasons(&self) -> Vec<String> {
        match &*self.phase() {
            Phase::Starting(what) => return vec![what.clone()],
            Phase::Stopping => return vec!["the service is stopping".to_owned()],
            Phase::Running => {}
        }
        Vec::new()
    }
}

impl Operations for State {
    fn not_ready(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(self.reasons())
    }

    fn inspect<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Value, Problem>> {
        Box::pin(async move {
            let _ = (key, &self.database);
            Ok(json!({ "service": self.name, "inFlight": [], "outbox": { "rows": 0, "oldestAgeSeconds": null } }))
        })
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
