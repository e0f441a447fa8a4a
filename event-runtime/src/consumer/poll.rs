//! The poll thread: the only one that polls, pauses and seeks, and that says what is committed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    commands::{Commands, Wishes},
    committer::{Commit, Committer},
    complaints::Complaints,
    ends::{Ends, Lookout},
    metrics::RecordLabels,
    rebalance::{Incoming, Rebalances},
};
use crate::{
    Record,
    config::KafkaConfig,
    error::Chain,
    reader::to_record,
    scheduler::{Generation, Limits, Partition},
};

/// How long a poll waits for its first record.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while a partition is paused: a resume must not wait long.
const PAUSED_WAIT: Duration = Duration::from_millis(5);
/// What is handed on at once is at most so much, and this part of the budget: batches on their way are not counted.
const BATCH: Batch = Batch { records: 500, bytes: 1 << 20 };
const BATCHES_A_BUDGET: usize = 10;
/// Offsets are committed this often; more would only repeat after a crash.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// How long errors go on before they are worth a log line.
const ERROR_GRACE: Duration = Duration::from_millis(500);
/// Between two log lines about errors that go on.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long a client that has failed may take to leave the group.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Before a new client replaces one that has failed for good.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// The client of a consumer.
pub(super) type Client = BaseConsumer<Rebalances>;

/// Makes clients: the first one, and others after fatal errors.
pub(super) struct ClientFactory {
    pub(super) kafka: KafkaConfig,
    pub(super) config: ClientConfig,
    pub(super) topics: Vec<String>,
    pub(super) context: Box<dyn Fn() -> Rebalances + Send>,
}

/// How much is handed on at once.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    records: usize,
    bytes: usize,
}

impl Batch {
    pub(super) fn within(budget: &Limits) -> Batch {
        Batch {
            records: (budget.records / BATCHES_A_BUDGET).clamp(1, BATCH.records),
            bytes: (budget.bytes / BATCHES_A_BUDGET).clamp(1, BATCH.bytes),
        }
    }
}

pub(super) struct Poller {
    pub(super) batch: Batch,
    pub(super) clients: ClientFactory,
    pub(super) commands: Arc<Commands>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) ends: Arc<Ends>,
}

/// When the poll thread last polled.
pub(super) struct Pulse {
    started: Instant,
    last_ms: AtomicU64,
}

enum Ended {
    Closing,
    /// Only a new client helps.
    Failed,
    /// The same, and this one cannot even say that it leaves.
    Stranded,
}

impl ClientFactory {
    pub(super) fn create(&self) -> Result<Arc<Client>, KafkaError> {
        let client: Arc<Client> = Arc::new(self.config.create_with_context((self.context)())?);
        let committer = Committer::start(client.context().group, Arc::downgrade(&client));
        let committer =
            committer.map_err(|error| KafkaError::ClientCreation(format!("no thread to commit: {error}")))?;
        let set = client.context().committer.set(committer);
        debug_assert!(set.is_ok(), "the context is new");
        let topics: Vec<_> = self.topics.iter().map(String::as_str).collect();
        client.subscribe(&topics)?;
        Ok(client)
    }
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    pub(super) fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    fn beat(&self) {
        self.last_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

impl Poller {
    /// Polls until told to close; then commits and leaves the group.
    pub(super) fn run(self, first: Arc<Client>) {
        let mut client = Some(first);
        loop {
            if let Some(client) = client.take() {
                let lookout = self.look_out(&client);
                let ended = Polling { client: &client, poller: &self, errors: Errors::default(), commit: None }.run();
                drop(lookout);
                let lost = client.context().owned().take_all();
                let patience = match ended {
                    // The last offsets are committed. Dropping the client leaves the group, which may block: nothing but
                    // this thread waits for it.
                    Ended::Closing => return,
                    Ended::Failed => LEAVE_PATIENCE,
                    Ended::Stranded => Duration::ZERO,
                };
                let context = client.context();
                context.metrics.client_replacements.get_or_create(&context.labels()).inc();
                context.membership.assigned.store(false, Ordering::Relaxed);
                context.lost(lost);
                let group = client.context().group;
                drop_aside(group, client, patience);
            }
            if self.commands.closing() {
                return;
            }
            thread::sleep(RENEW_PAUSE);
            self.pulse.beat();
            match self.clients.create() {
                Ok(new) => client = Some(new),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "a new Kafka client cannot be made; trying again")
                }
            }
        }
    }
}

impl Poller {
    fn look_out(&self, client: &Arc<Client>) -> Option<Lookout> {
        let ClientFactory { kafka, config, topics, .. } = &self.clients;
        Lookout::start(kafka, config, topics, client.context(), self.ends.clone())
            .inspect_err(|error| tracing::warn!(%error, "nothing watches the lag: its metric is missing"))
            .ok()
    }
}

/// Leaving the group may block for ever in a client that has failed: it is waited for a limited time.
fn drop_aside<T: Send + 'static>(group: &str, client: T, patience: Duration) {
    let (dropped, gone) = sync_channel(1);
    let spawned = thread::Builder::new().name(format!("{group}-leave")).spawn(move || {
        drop(client);
        dropped.send(()).ok();
    });
    match spawned {
        Ok(_) => drop(gone.recv_timeout(patience)),
        // The client has been dropped right here.
        Err(error) => tracing::debug!(%error, "no thread to leave the group from"),
    }
}

struct Polling<'a> {
    client: &'a Arc<Client>,
    poller: &'a Poller,
    errors: Errors,
    /// The regular commit that is under way.
    commit: Option<Commit>,
}

impl Polling<'_> {
    fn run(mut self) -> Ended {
        let mut committed_at = Instant::now();
        loop {
            self.poller.pulse.beat();
            // A dispatcher that is gone without a word has failed: a consumer that handles nothing must not look alive.
            if self.context().incoming.is_closed() {
                self.poller.commands.close();
            }
            let wishes = self.poller.commands.take();
            let (close, replace) = (wishes.close, wishes.replace_client);
            let paused = self.apply(wishes);
            if close {
                self.commit_last();
                return Ended::Closing;
            }
            if replace {
                self.context().give_back_all(self.client);
                return Ended::Failed;
            }
            if self.context().stranded.load(Ordering::Relaxed) {
                let group = self.context().group;
                tracing::warn!(
                    group,
                    "the Kafka client was told of no brokers and knows none; going on with a new one"
                );
                return Ended::Stranded;
            }
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                committed_at = Instant::now();
                self.commit();
            }
            match self.poll_batch(if paused { PAUSED_WAIT } else { IDLE_WAIT }) {
                Ok(records) if records.is_empty() => {}
                Ok(records) => {
                    self.errors.over(self.context().group);
                    // An error means that the dispatcher is gone, which the next round finds out.
                    self.context().incoming.blocking_send(Incoming::Records(records)).ok();
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    tracing::error!(group = self.context().group, error = %code, "the Kafka client failed for good");
                    return Ended::Failed;
                }
                // At once on to the next: while the brokers are away librdkafka queues dozens of errors a second, and
                // what comes after them, such as a new assignment, waits behind them.
                Err(error) => self.errors.note(self.context().group, &error),
            }
        }
    }

    fn context(&self) -> &Rebalances {
        self.client.context()
    }

    /// Waits for a first record, then takes what the local queue has. An error after a record comes again or was passing.
    fn poll_batch(&self, wait: Duration) -> Result<Vec<(Partition, Generation, Record)>, KafkaError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut polled = self.client.poll(wait);
        while let Some(message) = polled {
            let message = match message {
                Ok(message) => message,
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(error),
                Err(error) if records.is_empty() => return Err(error),
                Err(_) => break,
            };
            let passed = self.context().owned().passed(message.topic(), message.partition(), message.offset());
            if let Some((partition, generation)) = passed {
                let record = to_record(&message, message.topic().into());
                bytes += record.size();
                records.push((partition, generation, record));
            }
            if records.len() >= self.poller.batch.records || bytes >= self.poller.batch.bytes {
                break;
            }
            polled = self.client.poll(Duration::ZERO);
        }
        self.count(&records);
        Ok(records)
    }

    fn count(&self, records: &[(Partition, Generation, Record)]) {
        let Rebalances { group, metrics, .. } = self.context();
        for of_topic in records.chunk_by(|(one, ..), (other, ..)| one.topic == other.topic) {
            let topic = of_topic[0].0.topic.to_string();
            metrics.consumed.get_or_create(&RecordLabels { group, topic }).inc_by(of_topic.len() as u64);
        }
    }

    /// Notes offsets to commit, pauses and resumes; whether anything is paused now.
    fn apply(&self, wishes: Wishes) -> bool {
        let mut owned = self.context().owned();
        for (partition, (generation, offset)) in wishes.commits {
            owned.wish(&partition, generation, offset);
        }
        for (partition, (generation, pause)) in wishes.pauses {
            if let Some(owned) = owned.current(&partition, generation).filter(|owned| owned.paused != pause) {
                owned.paused = pause;
                self.pause_or_resume(&partition, pause, owned.next);
            }
        }
        owned.iter_mut().any(|(_, owned)| owned.paused)
    }

    fn pause_or_resume(&self, partition: &Partition, pause: bool, next: Option<i64>) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&partition.topic, partition.number);
        let changed = if pause { self.client.pause(&list) } else { self.client.resume(&list) };
        let sought = match (pause, next) {
            // Without it the next record took up to a second when nothing else was being fetched.
            (false, Some(next)) => {
                self.client.seek(&partition.topic, partition.number, Offset::Offset(next), Duration::ZERO)
            }
            _ => Ok(()),
        };
        if let Err(error) = changed.and(sought) {
            tracing::warn!(%partition, pause, error = %Chain(&error), "the partition was not paused or resumed");
        }
    }

    /// One at a time: what is handled meanwhile goes with the next.
    fn commit(&mut self) {
        if let Some(commit) = self.commit.take() {
            match commit.done() {
                Some(outcome) => self.context().committed(&commit.offsets, outcome),
                None => return self.commit = Some(commit),
            }
        }
        let offsets = self.context().owned().take_uncommitted();
        if let Some(committer) = self.context().committer.get().filter(|_| !offsets.is_empty()) {
            match committer.commit(offsets.clone()) {
                Ok(commit) => self.commit = Some(commit),
                Err(error) => self.context().committed(&offsets, Err(error)),
            }
        }
    }

    fn commit_last(&mut self) {
        // One that is under way may fail.
        if let Some(commit) = self.commit.take() {
            self.context().owned().commit_again(&commit.offsets);
        }
        let offsets = self.context().owned().take_uncommitted();
        self.context().commit_now(offsets);
    }
}

/// Says that Kafka is away, not too often, and that it is back. A single error, such as one lost connection of several,
/// is nobody's concern.
#[derive(Default)]
struct Errors {
    first: Option<Instant>,
    last: Option<Instant>,
    logged: Option<Instant>,
}

impl Errors {
    fn note(&mut self, group: &str, error: &KafkaError) {
        // The client's context has said it, and what to do about it.
        if error.rdkafka_error_code().is_some_and(Complaints::lasts) {
            return;
        }
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last > ERROR_LOG_INTERVAL) {
            *self = Errors::default();
        }
        self.last = Some(now);
        let first = *self.first.get_or_insert(now);
        if now - first < ERROR_GRACE || self.logged.is_some_and(|logged| now - logged < ERROR_LOG_INTERVAL) {
            return;
        }
        self.logged = Some(now);
        tracing::warn!(group, %error, "Kafka cannot be read; trying again");
    }

    fn over(&mut self, group: &str) {
        if let Errors { first: Some(first), logged: Some(_), .. } = std::mem::take(self) {
            tracing::info!(group, after_ms = first.elapsed().as_millis() as u64, "Kafka is read again");
        }
    }
}

#[cfg(test)]
mod tests;
