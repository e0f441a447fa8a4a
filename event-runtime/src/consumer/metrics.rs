//! What a consumer counts. The names are listed in docs/OPERATIONS.md.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The metric families of all consumers of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics {
    pub(super) consumed: Family<RecordLabels, Counter>,
    pub(super) handled: Family<EventLabels, Counter>,
    pub(super) retried: Family<EventLabels, Counter>,
    pub(super) rejected: Family<EventLabels, Counter>,
    pub(super) duplicates: Family<EventLabels, Counter>,
    pub(super) skipped: Family<RecordLabels, Counter>,
    pub(super) dead_letters: Family<EventLabels, Counter>,
    pub(super) outages: Family<EventLabels, Counter>,
    pub(super) breaker_openings: Family<EventLabels, Counter>,
    pub(super) in_flight: Family<GroupLabels, Gauge>,
    pub(super) blocked_keys: Family<GroupLabels, Gauge>,
    pub(super) paused_partitions: Family<GroupLabels, Gauge>,
    pub(super) assigned_partitions: Family<GroupLabels, Gauge>,
    pub(super) held_partitions: Family<GroupLabels, Gauge>,
    pub(super) careful_partitions: Family<GroupLabels, Gauge>,
    pub(super) crashes: Family<RecordLabels, Counter>,
    pub(super) overruns: Family<GroupLabels, Counter>,
    pub(super) blocked_threads: Family<GroupLabels, Gauge>,
    pub(super) dead_letter_floods: Family<GroupLabels, Counter>,
    pub(super) stopped_by_flood: Family<GroupLabels, Gauge>,
    pub(super) client_replacements: Family<GroupLabels, Counter>,
    pub(super) lag_records: Family<PartitionLabels, Gauge>,
    pub(super) lag_seconds: Family<PartitionLabels, Gauge<f64, AtomicU64>>,
    pub(super) oldest_unhandled_seconds: Family<PartitionLabels, Gauge<f64, AtomicU64>>,
    pub(super) rebalances: Family<GroupLabels, Counter>,
    pub(super) commit_failures: Family<GroupLabels, Counter>,
    pub(super) batches_rolled_back: Family<GroupLabels, Counter>,
    pub(super) batch_records: Family<GroupLabels, Histogram, fn() -> Histogram>,
    pub(super) drain_seconds: Family<GroupLabels, Histogram, fn() -> Histogram>,
    pub(super) handler_seconds: Family<EventLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GroupLabels {
    pub(super) group: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecordLabels {
    pub(super) group: &'static str,
    pub(super) topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabels {
    pub(super) group: &'static str,
    pub(super) topic: String,
    pub(super) partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EventLabels {
    pub(super) group: &'static str,
    pub(super) topic: String,
    pub(super) r#type: String,
}

/// What a group has in hand, each found once: they are set with every turn of the dispatcher.
pub(super) struct GroupGauges {
    pub(super) in_flight: Gauge,
    pub(super) blocked_keys: Gauge,
    pub(super) paused_partitions: Gauge,
    pub(super) assigned_partitions: Gauge,
    pub(super) held_partitions: Gauge,
    pub(super) careful_partitions: Gauge,
}

/// What every record of an event type counts, found once.
#[derive(Debug)]
pub(super) struct EventCounters {
    pub(super) handled: Counter,
    pub(super) duplicates: Counter,
    pub(super) handler_seconds: Histogram,
}

/// The type of what is no event.
pub(super) const NO_EVENT: &str = "-";

const HANDLER_SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const BATCH_RECORDS: [f64; 8] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const DRAIN_SECONDS: [f64; 8] = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

impl Default for ConsumerMetrics {
    fn default() -> Self {
        ConsumerMetrics {
            consumed: Family::default(),
            handled: Family::default(),
            retried: Family::default(),
            rejected: Family::default(),
            duplicates: Family::default(),
            skipped: Family::default(),
            dead_letters: Family::default(),
            outages: Family::default(),
            breaker_openings: Family::default(),
            in_flight: Family::default(),
            blocked_keys: Family::default(),
            paused_partitions: Family::default(),
            assigned_partitions: Family::default(),
            held_partitions: Family::default(),
            careful_partitions: Family::default(),
            crashes: Family::default(),
            overruns: Family::default(),
            blocked_threads: Family::default(),
            dead_letter_floods: Family::default(),
            stopped_by_flood: Family::default(),
            client_replacements: Family::default(),
            lag_records: Family::default(),
            lag_seconds: Family::default(),
            oldest_unhandled_seconds: Family::default(),
            rebalances: Family::default(),
            commit_failures: Family::default(),
            batches_rolled_back: Family::default(),
            batch_records: Family::new_with_constructor(|| Histogram::new(BATCH_RECORDS)),
            drain_seconds: Family::new_with_constructor(|| Histogram::new(DRAIN_SECONDS)),
            handler_seconds: Family::new_with_constructor(|| Histogram::new(HANDLER_SECONDS)),
        }
    }
}

impl ConsumerMetrics {
    /// Adds all families to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("consumer");
        registry.register("records_consumed", "Records read", self.consumed.clone());
        registry.register("records_handled", "Records a handler has handled", self.handled.clone());
        registry.register("records_retried", "Failed attempts that are tried again", self.retried.clone());
        registry.register("records_rejected", "Records that can never be handled", self.rejected.clone());
        registry.register("records_duplicate", "Records that had been handled before", self.duplicates.clone());
        registry.register("records_skipped", "Records that no handler of the group takes", self.skipped.clone());
        registry.register("dead_letters", "Records written to a dead-letter topic", self.dead_letters.clone());
        registry.register("outages", "Times that a dependency was found to be away", self.outages.clone());
        let openings = "Times that failures of most keys were taken for an outage";
        registry.register("breaker_openings", openings, self.breaker_openings.clone());
        registry.register("in_flight", "Attempts running now", self.in_flight.clone());
        registry.register("blocked_keys", "Keys that wait for a retry or a dependency", self.blocked_keys.clone());
        registry.register("paused_partitions", "Partitions paused at the budget", self.paused_partitions.clone());
        registry.register("assigned_partitions", "Partitions this member has", self.assigned_partitions.clone());
        let held = "Partitions that wait until the database says how their last owner left them";
        registry.register("held_partitions", held, self.held_partitions.clone());
        let careful = "Partitions whose records are handled alone because two owners in a row died";
        registry.register("careful_partitions", careful, self.careful_partitions.clone());
        registry.register("record_crashes", "Times that a record ended its process", self.crashes.clone());
        let overruns = "Handlers that blocked their thread beyond their deadline";
        registry.register("overruns", overruns, self.overruns.clone());
        registry.register("blocked_threads", "Handlers that do so now", self.blocked_threads.clone());
        let floods = "Times that a flood of dead letters stopped the consumer";
        registry.register("dead_letter_floods", floods, self.dead_letter_floods.clone());
        let replacements = "Times that a Kafka client which failed, knew no broker or read nothing was replaced";
        registry.register("client_replacements", replacements, self.client_replacements.clone());
        let stopped = "Whether a flood of dead letters has stopped the consumer";
        registry.register("stopped_by_flood", stopped, self.stopped_by_flood.clone());
        registry.register(
            "lag_records",
            "Records of an owned partition that are not handled",
            self.lag_records.clone(),
        );
        let lag = "Time since the first record that is not handled was written";
        registry.register_with_unit("lag", lag, Unit::Seconds, self.lag_seconds.clone());
        let oldest = "Age of the first record in hand that is not handled";
        registry.register_with_unit("oldest_unhandled", oldest, Unit::Seconds, self.oldest_unhandled_seconds.clone());
        registry.register("rebalances", "Assignments and revocations", self.rebalances.clone());
        registry.register("commit_failures", "Offset commits that failed", self.commit_failures.clone());
        registry.register("batch_records", "Records that shared a transaction", self.batch_records.clone());
        let rolled_back = "Transactions of several records that were rolled back, so that each ran alone";
        registry.register("batches_rolled_back", rolled_back, self.batches_rolled_back.clone());
        let drain = "Time until work in flight had ended, at a revoke";
        registry.register_with_unit("drain", drain, Unit::Seconds, self.drain_seconds.clone());
        registry.register_with_unit("handler", "Time an attempt took", Unit::Seconds, self.handler_seconds.clone());
    }

    pub(super) fn gauges(&self, group: &'static str) -> GroupGauges {
        let of = |family: &Family<GroupLabels, Gauge>| family.get_or_create_owned(&GroupLabels { group });
        GroupGauges {
            in_flight: of(&self.in_flight),
            blocked_keys: of(&self.blocked_keys),
            paused_partitions: of(&self.paused_partitions),
            assigned_partitions: of(&self.assigned_partitions),
            held_partitions: of(&self.held_partitions),
            careful_partitions: of(&self.careful_partitions),
        }
    }

    pub(super) fn counters(&self, labels: &EventLabels) -> EventCounters {
        EventCounters {
            handled: self.handled.get_or_create_owned(labels),
            duplicates: self.duplicates.get_or_create_owned(labels),
            handler_seconds: self.handler_seconds.get_or_create_owned(labels),
        }
    }

    /// Shows what a group with handlers for `events` (topic, type) may come to count as 0. A counter that appears with its
    /// first failure looks to Prometheus as if it had never grown, so that an alert would miss that failure.
    pub(super) fn begin(&self, group: &'static str, events: &[(&'static str, &'static str)]) {
        self.commit_failures.get_or_create(&GroupLabels { group }).inc_by(0);
        self.client_replacements.get_or_create(&GroupLabels { group }).inc_by(0);
        self.dead_letter_floods.get_or_create(&GroupLabels { group }).inc_by(0);
        self.batches_rolled_back.get_or_create(&GroupLabels { group }).inc_by(0);
        self.stopped_by_flood.get_or_create(&GroupLabels { group }).set(0);
        drop(self.drain_seconds.get_or_create(&GroupLabels { group }));
        self.overruns.get_or_create(&GroupLabels { group }).inc_by(0);
        self.blocked_threads.get_or_create(&GroupLabels { group }).set(0);
        for &(topic, event_type) in events {
            self.crashes.get_or_create(&RecordLabels { group, topic: topic.to_owned() }).inc_by(0);
            for r#type in [event_type, NO_EVENT] {
                let labels = EventLabels { group, topic: topic.to_owned(), r#type: r#type.to_owned() };
                for family in [&self.retried, &self.rejected, &self.dead_letters, &self.outages, &self.breaker_openings]
                {
                    family.get_or_create(&labels).inc_by(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_fail_is_shown_as_0_before_anything_fails() {
        let (metrics, mut registry) = (ConsumerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.begin("payment-service", &[("orders", "order.created")]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"consumer_dead_letters_total{group="payment-service",topic="orders",type="order.created"} 0"#,
            r#"consumer_dead_letters_total{group="payment-service",topic="orders",type="-"} 0"#,
            r#"consumer_outages_total{group="payment-service",topic="orders",type="order.created"} 0"#,
            r#"consumer_commit_failures_total{group="payment-service"} 0"#,
            r#"consumer_drain_seconds_bucket{le="5.0",group="payment-service"} 0"#,
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
