//! Counters, gauges and histograms, in Prometheus's text format. No globals: a service has its own registry, so that
//! several of them in one process do not count into each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::{
    encoding::text::encode,
    registry::{Metric, Registry},
};

/// What one service counts. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// The media type of [`encode`](Metrics::encode).
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Nothing yet.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Adds a metric. Names have base units (`_seconds`, `_bytes`); counters get their `_total` by themselves.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.registry().register(name, help, metric);
    }

    /// Adds several: `metrics.with_registry(|registry| …)`.
    pub fn with_registry<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry())
    }

    /// Everything, as Prometheus reads it.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry()).expect("writing to a string cannot fail");
        text
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while registering leaves a registry that lacks a metric, which is no reason to panic again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
