//! How far the consumer is, as gauges: of the partitions it owns, and of no others.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    ends::Ends,
    metrics::{ConsumerMetrics, GroupLabels, PartitionLabels},
};
use crate::scheduler::{Flood, Partition, Scheduler};

pub(super) struct Progress {
    pub(super) group: &'static str,
    pub(super) ends: Arc<Ends>,
    pub(super) metrics: ConsumerMetrics,
    pub(super) shown: HashSet<Partition>,
    pub(super) flood: watch::Sender<Option<Flood>>,
}

impl Progress {
    /// Tells `scheduler` where its partitions end, and shows how far it is.
    pub(super) fn show<T: Clone>(&mut self, scheduler: &mut Scheduler<T>, now: Timestamp) {
        for (partition, (generation, extent)) in &*self.ends.known() {
            scheduler.note_extent(partition, *generation, *extent);
        }
        let age =
            |since: Option<Timestamp>| since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
        let mut unread = self.ends.unread();
        for (partition, lag) in scheduler.lags() {
            let labels = self.labels(partition);
            self.metrics.oldest_unhandled_seconds.get_or_create(&labels).set(age(lag.oldest));
            // What is not known yet is not shown as 0.
            if let Some(records) = lag.records {
                let since = match lag.unread {
                    Some(offset) => unread.since(partition, offset, offset + records, now),
                    None => lag.oldest,
                };
                self.metrics.lag_records.get_or_create(&labels).set(records);
                self.metrics.lag_seconds.get_or_create(&labels).set(age(since));
            }
            if lag.unread.is_none() {
                unread.forget(partition);
            }
            self.shown.insert(partition.clone());
        }
    }

    /// The partition is ours no longer: whoever has it now shows it.
    pub(super) fn forget(&mut self, partition: &Partition) {
        if self.shown.remove(partition) {
            let labels = self.labels(partition);
            self.ends.unread().forget(partition);
            self.metrics.lag_records.remove(&labels);
            self.metrics.lag_seconds.remove(&labels);
            self.metrics.oldest_unhandled_seconds.remove(&labels);
        }
    }

    pub(super) fn forget_all(&mut self) {
        for partition in self.shown.clone() {
            self.forget(&partition);
        }
    }

    /// Says when a flood of dead letters begins, goes on, and is over.
    pub(super) fn note_flood(&self, flood: Option<Flood>) {
        let before = *self.flood.borrow();
        if flood == before {
            return;
        }
        let (group, labels) = (self.group, GroupLabels { group: self.group });
        match flood {
            Some(Flood { dead_letters, records, failed_probes: 0 }) => {
                self.metrics.dead_letter_floods.get_or_create(&labels).inc();
                tracing::error!(
                    group,
                    dead_letters,
                    records,
                    "a flood of dead letters: nothing more is handled until the cause is mended. What was not handled \
                     stays in Kafka; after a pause one record at a time is tried"
                );
            }
            Some(Flood { failed_probes, .. }) => {
                tracing::warn!(group, failed_probes, "a record was tried and is a dead letter as well; pausing longer");
            }
            None => tracing::info!(group, "a record was handled: the flood of dead letters is over"),
        }
        self.metrics.stopped_by_flood.get_or_create(&labels).set(i64::from(flood.is_some()));
        self.flood.send_replace(flood);
    }

    fn labels(&self, partition: &Partition) -> PartitionLabels {
        PartitionLabels { group: self.group, topic: partition.topic.to_string(), partition: partition.number }
    }
}
