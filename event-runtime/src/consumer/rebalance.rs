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
    owned::{Owned, OwnedPartition},
};
use crate::{
    Record,
    context::is_stranded,
    error::Chain,
    scheduler::{Generation, Partition},
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
    /// Drain these, and answer with the offsets to read next.
    Revoked(Vec<Partition>, SyncSender<Offsets>),
    /// Somebody else may have these already.
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
        self.commit_again(offsets);
    }

    /// Of those that are still owned.
    pub(super) fn commit_again(&self, offsets: &Offsets) {
        let mut owned = self.owned();
        for (partition, offset) in offsets {
            let owned = owned.get_mut(&partition.topic, partition.number);
            if let Some(owned) = owned.filter(|owned| owned.sent == Some(*offset)) {
                owned.sent = None;
            }
        }
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
        self.revoked(consumer, all);
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: Vec<Partition>) {
        // From here on no regular commit names them; the one below is the last.
        let removed: Vec<_> = {
            let mut owned = self.owned();
            let ours = partitions.into_iter();
            ours.filter_map(|partition| owned.remove(&partition).map(|owned| (partition, owned))).collect()
        };
        if removed.is_empty() {
            return;
        }
        let partitions = removed.iter().map(|(partition, _)| partition.clone()).collect();
        self.metrics.rebalances.get_or_create(&self.labels()).inc();
        if consumer.assignment_lost() {
            self.lost(partitions);
            return;
        }
        let begun = std::time::Instant::now();
        let names = names(&partitions);
        let offsets = self.drained(partitions, &removed);
        self.metrics.drain_seconds.get_or_create(&self.labels()).observe(begun.elapsed().as_secs_f64());
        self.commit_now(offsets);
        tracing::info!(
            group = self.group,
            partitions = names,
            drained_ms = begun.elapsed().as_millis() as u64,
            "revoked"
        );
    }

    /// The offsets to commit for partitions that are no longer ours, once the dispatcher has drained them. A dispatcher
    /// that shuts down or is late gives no answer: then what it wished for before is all there is.
    fn drained(&self, partitions: Vec<Partition>, removed: &[(Partition, OwnedPartition)]) -> Offsets {
        let (answer, drained) = sync_channel(1);
        self.tell(Incoming::Revoked(partitions, answer));
        if let Ok(offsets) = drained.recv_timeout(self.drain_deadline + ANSWER_PATIENCE) {
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
            Rebalance::Revoke(list) => self.revoked(consumer, partitions(list)),
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
mod tests {
    use std::thread;

    use super::*;

    const GENERATION: Generation = 7;

    fn partition(topic: &str, number: i32) -> Partition {
        Partition { topic: topic.into(), number }
    }

    /// A member's context without a client, and what the dispatcher hears of it.
    fn member() -> (Rebalances, mpsc::Receiver<Incoming>) {
        let (incoming, heard) = mpsc::channel(1);
        let rebalances = Rebalances {
            group: "notes-service",
            drain_deadline: Duration::ZERO,
            incoming,
            commands: Arc::default(),
            membership: Arc::default(),
            metrics: ConsumerMetrics::default(),
            committer: OnceLock::new(),
            complaints: Arc::default(),
            owned: Arc::default(),
            stranded: AtomicBool::default(),
        };
        (rebalances, heard)
    }

    /// Partitions 0 to 3 as they were when they were revoked: all but the last have an offset that was to be committed.
    fn removed() -> Vec<(Partition, OwnedPartition)> {
        let removed = (0..4).map(|number| {
            let wanted = (number < 3).then_some(10);
            let owned = OwnedPartition { generation: GENERATION, next: None, paused: false, wanted, sent: None };
            (partition("orders", number), owned)
        });
        removed.collect()
    }

    fn drained(rebalances: &Rebalances) -> Vec<(i32, i64)> {
        let removed = removed();
        let partitions = removed.iter().map(|(partition, _)| partition.clone()).collect();
        let offsets = rebalances.drained(partitions, &removed).into_iter();
        offsets.map(|(partition, offset)| (partition.number, offset)).collect()
    }

    #[test]
    fn a_revoke_without_an_answer_commits_what_is_known_of_its_generation() {
        let (rebalances, heard) = member();
        let wish = |number, generation, offset| {
            rebalances.commands.commit(partition("orders", number), generation, offset);
        };
        wish(1, GENERATION, 11);
        wish(2, GENERATION - 1, 99);
        wish(4, GENERATION, 50);
        drop(heard);
        assert_eq!(drained(&rebalances), [(0, 10), (1, 11), (2, 10)]);
        let left: Vec<_> = rebalances.commands.take().commits.into_keys().collect();
        assert_eq!(left, [partition("orders", 4)], "what is still owned is committed as ever");
    }

    #[test]
    fn of_a_dispatcher_that_is_late_what_is_known_is_committed() {
        let (rebalances, _heard) = member();
        assert_eq!(drained(&rebalances), [(0, 10), (1, 10), (2, 10)]);
    }

    #[test]
    fn what_the_dispatcher_answers_is_committed() {
        let (rebalances, mut heard) = member();
        let dispatcher = thread::spawn(move || match heard.blocking_recv() {
            Some(Incoming::Revoked(partitions, answer)) => answer.send(vec![(partitions[1].clone(), 12)]),
            _ => panic!("a revoke is told"),
        });
        assert_eq!(drained(&rebalances), [(1, 12)]);
        dispatcher.join().unwrap().unwrap();
    }

    #[test]
    fn partitions_are_named_in_ranges() {
        let mut owned: Vec<Partition> = [5, 0, 1, 3, 2].map(|number| partition("orders", number)).into();
        owned.push(partition("mails", 0));
        assert_eq!(names(&owned), "mails[0] orders[0-3,5]");
        assert_eq!(names(&[]), "");
    }
}
