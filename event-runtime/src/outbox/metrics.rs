//! What the relay counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{
    counter::Counter,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use super::Depth;
use crate::telemetry::metrics::Metrics as Families;

/// The metrics of one outbox and its relay.
#[derive(Clone, Debug)]
pub struct Metrics {
    rows: Gauge,
    delayed: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    pub(super) buckets: Gauge,
    pub(super) published: Counter,
    pub(super) retries: Counter,
    pub(super) set_aside: Counter,
    pub(super) timeouts: Counter,
    pub(super) publish_seconds: Histogram,
}

impl Metrics {
    /// Metrics that nobody sees.
    pub fn unregistered() -> Metrics {
        Metrics {
            rows: Gauge::default(),
            delayed: Gauge::default(),
            oldest_age: Gauge::default(),
            buckets: Gauge::default(),
            published: Counter::default(),
            retries: Counter::default(),
            set_aside: Counter::default(),
            timeouts: Counter::default(),
            // 1 ms to 65 s.
            publish_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
        }
    }

    /// Metrics that appear among `families`.
    pub fn register(families: &Families) -> Metrics {
        let metrics = Metrics::unregistered();
        families.register("outbox_rows", "Events that are due and not published", metrics.rows.clone());
        families.register("outbox_delayed_rows", "Events whose time has not come", metrics.delayed.clone());
        families.register(
            "outbox_oldest_age_seconds",
            "For how long the oldest unpublished event has been due; 0 when there is none",
            metrics.oldest_age.clone(),
        );
        families.register(
            "outbox_buckets",
            "Buckets of the outbox that this instance publishes; all instances together have 16",
            metrics.buckets.clone(),
        );
        families.register("outbox_published", "Events that Kafka acknowledged", metrics.published.clone());
        families.register("outbox_retries", "Attempts to publish an event that failed", metrics.retries.clone());
        families.register(
            "outbox_set_aside",
            "Events that cannot be published (too large, no such topic, an unreadable row): SERVICE outbox list",
            metrics.set_aside.clone(),
        );
        families.register(
            "outbox_timeouts",
            "Answers of the database or of Kafka that the relay did not wait for any longer",
            metrics.timeouts.clone(),
        );
        families.register(
            "outbox_publish_seconds",
            "Time from the transaction that said an event to Kafka's acknowledgement",
            metrics.publish_seconds.clone(),
        );
        metrics
    }

    /// Shows nothing: another instance counts what waits.
    pub(super) fn stand_by(&self) {
        self.rows.set(0);
        self.delayed.set(0);
        self.oldest_age.set(0.0);
    }

    /// Shows `depth` as it is now.
    pub fn show(&self, depth: &Depth) {
        self.rows.set(i64::try_from(depth.rows).unwrap_or(i64::MAX));
        self.delayed.set(i64::try_from(depth.delayed).unwrap_or(i64::MAX));
        self.oldest_age.set(depth.oldest_age.map_or(0.0, |age| age.as_secs_f64()));
    }
}
