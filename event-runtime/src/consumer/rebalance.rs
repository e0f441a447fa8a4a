//! The partitions this member owns, and what happens when they come and go. librdkafka calls in here from inside
//! `poll`, so everything runs on the poll thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use tokio::sync::mpsc;

use super::{
    commands::Commands,
    committer::{Committer, Offsets},
    complaints::{Complaints, complain},
    metrics::{ConsumerMetrics, GroupLabels},
};
use crate::{
    Record,
    context::is_stranded,
    error::Chain,
    scheduler::{Generation, Owned, OwnedPartition, Partition},
};

/// A synchronous commit has no timeout of its own: with its broker down it blocked for 45 s inside a revoke. The
/// committing thread may wait that long; we do not.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
/// How much longer than the drain deadline the dispatcher may take to answer a revoke.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What the poll thread tells the dispatcher.
pub(super) enum Incoming {
    Records(Vec<(Partition, Generation, Record)>),
    Assigned(Vec<Partition>, Generation),
    /// Drain these within that time, and answer with the offsets to read next.
    Revoked(Vec<Partition>, Duration, SyncSender<Offsets>),
    /// Somebody else may have these already, and the client can commit nothing more.
    Lost(Vec<Partition>),
}

/// What outlives a Kafka client.
#[derive(Default)]
pub(super) struct Membership {
    /// The number of the last assignment.
    generation: AtomicU64,
    /// Set by the first assignment.
    pub(super) assigned: AtomicBool,
}

/// The context of the Kafka client.
pub(super) struct Rebalances {
    pub(super) group: &'static str,
    pub(super) drain_deadline: Duration,
    /// It has a `group.instance.id`.
    pub(super) is_static: bool,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) commands: Arc<Commands>,
    pub(super) membership: Arc<Membership>,
    pub(super) metrics: ConsumerMetrics,
    pub(super) committer: OnceLock<Committer>,
    pub(super) complaints: Arc<Mutex<Complaints>>,
    /// Looked at by the thread that asks where partitions end, too.
    pub(super) owned: Arc<Mutex<Owned>>,
    /// The client knows no broker any more.
    pub(super) stranded: AtomicBool,
}

impl Rebalances {
    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn labels(&self) -> GroupLabels {
        GroupLabels { group: self.group }
    }

    /// Commits, and waits for that a limited time.
    pub(super) fn commit_now(&self, offsets: Offsets) {
        let Some(committer) = self.committer.get().filter(|_| !offsets.is_empty()) else { return };
        let outcome = committer.commit(offsets).and_then(|commit| commit.wait(COMMIT_PATIENCE));
        if let Err(error) = outcome {
            self.metrics.commit_failures.get_or_create(&self.labels()).inc();
            let group = self.group;
            tracing::warn!(group, error, "the last offsets were not committed: records may come twice");
        }
    }

    /// Notes what became of a regular commit.
    pub(super) fn committed(&self, offsets: &Offsets, outcome: Result<(), String>) {
        let Err(error) = outcome else { return };
        self.metrics.commit_failures.get_or_create(&self.labels()).inc();
        tracing::warn!(group = self.group, error, "offsets were not committed; trying again");
        self.owned().commit_again(offsets);
    }

    fn assigned(&self, list: &TopicPartitionList) {
        let generation = self.membership.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let partitions = partitions(list);
        {
            let mut owned = self.owned();
            for partition in &partitions {
                owned.add(partition, generation);
            }
        }
        self.membership.assigned.store(true, Ordering::Relaxed);
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).forget();
        self.metrics.rebalances.get_or_create(&self.labels()).inc();
        tracing::info!(group = self.group, partitions = names(&partitions), "assigned");
        self.tell(Incoming::Assigned(partitions, generation));
    }

    /// Drains and commits as for a revoke of everything, before the client goes.
    pub(super) fn give_back_all(&self, consumer: &BaseConsumer<Self>) {
        let all = self.owned().iter_mut().map(|(partition, _)| partition).collect();
        self.revoked(all, consumer.assignment_lost());
    }

    /// `lost` is what librdkafka believes, and mostly so: then another member may be at work on the same keys, and what
    /// runs here is cut off at once instead of drained beside it. Only the broker knows: it is asked to take the offsets
    /// either way, and refuses them from a member that it has shut out, so that nothing is rewound.
    fn revoked(&self, partitions: Vec<Partition>, lost: bool) {
        // From here on no regular commit names them; the one below is the last.
        let removed: Vec<_> = {
            let mut owned = self.owned();
            let ours = partitions.into_iter();
            ours.filter_map(|partition| owned.remove(&partition).map(|owned| (partition, owned))).collect()
        };
        if removed.is_empty() {
            return;
        }
        let partitions: Vec<_> = removed.iter().map(|(partition, _)| partition.clone()).collect();
        self.metrics.rebalances.get_or_create(&self.labels()).inc();
        let names = names(&partitions);
        if lost {
            tracing::warn!(group = self.group, partitions = names, "lost: another member may have them");
        }
        let begun = std::time::Instant::now();
        let deadline = if lost { Duration::ZERO } else { self.drain_deadline };
        let offsets = self.drained(partitions, &removed, deadline);
        if !lost {
            self.metrics.drain_seconds.get_or_create(&self.labels()).observe(begun.elapsed().as_secs_f64());
        }
        // A static member that has lost its assignment has no id any more. By its name alone the broker takes it for an
        // impostor, and librdkafka fails for good.
        if !(lost && self.is_static) {
            self.commit_now(offsets);
        }
        tracing::info!(
            group = self.group,
            partitions = names,
            drained_ms = begun.elapsed().as_millis() as u64,
            "revoked"
        );
    }

    /// The offsets to commit for partitions that are no longer ours, once the dispatcher has drained them. A dispatcher
    /// that shuts down or is late gives no answer: then what it wished for before is all there is.
    fn drained(
        &self,
        partitions: Vec<Partition>,
        removed: &[(Partition, OwnedPartition)],
        deadline: Duration,
    ) -> Offsets {
        let (answer, drained) = sync_channel(1);
        self.tell(Incoming::Revoked(partitions, deadline, answer));
        if let Ok(offsets) = drained.recv_timeout(deadline + ANSWER_PATIENCE) {
            return offsets;
        }
        let known = removed.iter().filter_map(|(partition, owned)| {
            let offset = self.commands.take_commit(partition, owned.generation).or(owned.wanted)?;
            Some((partition.clone(), offset))
        });
        known.collect()
    }

    pub(super) fn lost(&self, partitions: Vec<Partition>) {
        if partitions.is_empty() {
            return;
        }
        tracing::warn!(group = self.group, partitions = names(&partitions), "lost: another member may have them");
        self.tell(Incoming::Lost(partitions));
    }

    fn tell(&self, incoming: Incoming) {
        // A dispatcher that is gone is shutting down and needs no news.
        self.incoming.blocking_send(incoming).ok();
    }
}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => {}
            Rebalance::Revoke(list) => self.revoked(partitions(list), consumer.assignment_lost()),
            Rebalance::Error(error) => {
                tracing::warn!(group = self.group, error = %Chain(error), "rebalance failed");
                let all = self.owned().take_all();
                self.lost(all);
            }
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.assigned(list);
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Settings for producers, given to all clients with -X.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" => tracing::debug!("{message}"),
            // Connections that fail: the poll thread says so, once.
            _ if matches!(facility, "FAIL" | "ERROR") => tracing::debug!(group = self.group, "{facility}: {message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(group = self.group, "{facility}: {message}");
            }
            _ => tracing::debug!(group = self.group, "{facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if !complain(&self.complaints, self.group, code, reason) {
            // `poll` returns it as well; the poll thread says what it means.
            tracing::debug!(group = self.group, %error, reason, "the consumer reports");
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if is_stranded(statistics) {
            self.stranded.store(true, Ordering::Relaxed);
        }
    }
}

/// The offsets as librdkafka takes them.
pub(super) fn offset_list(offsets: &[(Partition, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*offset))
            .expect("an offset that was read is no negative number");
    }
    list
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let elements = list.elements();
    elements.iter().map(|it| Partition { topic: it.topic().into(), number: it.partition() }).collect()
}

/// `orders[0-5] mails[0,3]`: a group may have dozens.
fn names(partitions: &[Partition]) -> String {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().insert(partition.number);
    }
    let shown = topics.into_iter().map(|(topic, numbers)| format!("{topic}[{}]", ranges(&numbers)));
    shown.collect::<Vec<_>>().join(" ")
}

fn ranges(numbers: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
