//! Where the owned partitions end, asked of the brokers once a second by a thread and a client of their own: the poll
//! thread must not wait for an answer, what librdkafka has cached is old for a partition that is paused or no longer
//! fetched, and on a connection that fetches, an answer waits behind the fetch.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    metadata::MetadataTopic,
};

use super::{
    complaints::{Complaints, complain},
    rebalance::Rebalances,
    unread::Unread,
};
use crate::{
    config::KafkaConfig,
    context::{QuietContext, Renewable},
    error::Chain,
    reader,
    scheduler::{Extent, Generation, Owned, Partition},
};

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// When topics of which nothing is assigned are looked for: first after a join has had its time, then now and then.
const FIRST_CHECK: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// How long brokers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What was last answered. Answers for a generation that has passed are to be ignored.
#[derive(Default)]
pub(super) struct Ends {
    extents: Mutex<HashMap<Partition, (Generation, Extent)>>,
    unread: Mutex<Unread>,
}

impl Ends {
    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<Partition, (Generation, Extent)>> {
        // It is replaced as a whole: a thread that panicked has left nothing half done.
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records that wait and are not in hand.
    pub(super) fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The asking thread of one client's partitions. It ends when this is dropped, or a little later.
pub(super) struct Lookout {
    _running: SyncSender<()>,
}

impl Lookout {
    /// `config` is that of the consumer: the same group, and the same idea of where a partition ends.
    pub(super) fn start(
        kafka: &KafkaConfig,
        config: &ClientConfig,
        topics: &[String],
        member: &Rebalances,
        ends: Arc<Ends>,
    ) -> io::Result<Lookout> {
        let (owned, complaints) = (member.owned.clone(), member.complaints.clone());
        let (group, topics, kafka) = (member.group, topics.to_vec(), kafka.clone());
        let from_latest = matches!(config.get("auto.offset.reset"), Some("latest" | "largest" | "end"));
        // It subscribes to nothing, so it is no member of the group.
        let client = Renewable::connect(config.clone()).map_err(io::Error::other)?;
        let (running, stopped) = sync_channel(0);
        let thread = thread::Builder::new().name(format!("{group}-ends"));
        let starts = HashMap::new();
        let asking = Asking { group, topics, kafka, client, owned, complaints, ends, from_latest, starts };
        thread.spawn(move || asking.run(&stopped))?;
        Ok(Lookout { _running: running })
    }
}

struct Asking {
    group: &'static str,
    /// What the consumer subscribes to.
    topics: Vec<String>,
    kafka: KafkaConfig,
    client: Renewable<BaseConsumer<QuietContext>>,
    owned: Arc<Mutex<Owned>>,
    complaints: Arc<Mutex<Complaints>>,
    ends: Arc<Ends>,
    /// Where a group begins that has committed nothing.
    from_latest: bool,
    /// Where reading began, of the partitions that are owned now.
    starts: HashMap<Partition, (Generation, i64)>,
}

impl Asking {
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        let mut check_at = Instant::now() + FIRST_CHECK;
        loop {
            self.look_after_client();
            if check_at <= Instant::now() {
                check_at = Instant::now() + CHECK_INTERVAL;
                self.check_topics();
            }
            match self.ask() {
                Ok(known) => {
                    *self.ends.known() = known;
                    self.date_unread();
                }
                // The poll thread says it when Kafka is away.
                Err(error) => tracing::debug!(group = self.group, %error, "the ends are not known"),
            }
            if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// It must be polled to hear what it reports; there are no records in it.
    fn look_after_client(&mut self) {
        while self.client.poll(Duration::ZERO).is_some() {}
        if self.client.is_stranded()
            && let Err(error) = self.client.renew()
        {
            tracing::debug!(group = self.group, %error, "nobody can ask for the ends");
        }
    }

    /// In the new group protocol the brokers assign nothing of a missing topic and say nothing.
    fn check_topics(&self) {
        let owned: HashSet<_> = self.owned().into_keys().map(|partition| partition.topic).collect();
        let without: Vec<_> = self.topics.iter().filter(|topic| !owned.contains(topic.as_str())).collect();
        if without.is_empty() {
            return;
        }
        // All of them: asking for one by name creates it on brokers that create topics by themselves.
        let Ok(metadata) = self.client.fetch_metadata(None, ANSWER_WITHIN) else { return };
        let existing: HashSet<_> = metadata.topics().iter().map(MetadataTopic::name).collect();
        for topic in without.into_iter().filter(|topic| !existing.contains(topic.as_str())) {
            // As librdkafka says it in the classic protocol: once is enough.
            let reason = format!("Subscribed topic not available: {topic}: Broker: Unknown topic or partition");
            complain(&self.complaints, self.group, RDKafkaErrorCode::UnknownTopicOrPartition, &reason);
        }
    }

    fn owned(&self) -> HashMap<Partition, Generation> {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.iter_mut().map(|(partition, owned)| (partition, owned.generation)).collect()
    }

    fn ask(&mut self) -> KafkaResult<HashMap<Partition, (Generation, Extent)>> {
        let owned = self.owned();
        if owned.is_empty() {
            return Ok(HashMap::new());
        }
        let ends = look_up(&self.client, owned.keys(), Offset::End)?;
        self.starts.retain(|partition, (generation, _)| owned.get(partition) == Some(generation));
        self.find_starts(&owned, &ends)?;
        let known = owned.into_iter().filter_map(|(partition, generation)| {
            let extent = Extent { start: self.starts.get(&partition)?.1, end: *ends.get(&partition)? };
            Some((partition, (generation, extent)))
        });
        Ok(known.collect())
    }

    /// Reads what waits and is not in hand, with another client: on a connection that fetches, the next question would wait.
    fn date_unread(&self) {
        let wanted = self.ends.unread().wanted();
        if wanted.is_empty() {
            return;
        }
        let offsets = wanted.iter().map(|(partition, (offset, _))| (partition.clone(), *offset)).collect();
        match reader::first_written(&self.kafka, &offsets, ANSWER_WITHIN) {
            Ok(written) => self.ends.unread().answer(&wanted, &written),
            Err(error) => tracing::debug!(
                group = self.group,
                error = %Chain(&error),
                "it is not known for how long the first record has waited"
            ),
        }
    }

    /// Once an assignment: from then on the scheduler knows how far it is.
    fn find_starts(
        &mut self,
        owned: &HashMap<Partition, Generation>,
        ends: &HashMap<Partition, i64>,
    ) -> Result<(), KafkaError> {
        let new: Vec<_> = owned.keys().filter(|partition| !self.starts.contains_key(partition)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let firsts = look_up(&self.client, new.iter().copied(), Offset::Beginning)?;
        let committed =
            offsets(&self.client.committed_offsets(list(new.iter().copied(), Offset::Invalid)?, ANSWER_WITHIN)?);
        for partition in new {
            let (Some(&first), Some(&end)) = (firsts.get(partition), ends.get(partition)) else { continue };
            let start = match committed.get(partition) {
                // Retention may have passed what was committed.
                Some(&committed) => committed.max(first),
                None if self.from_latest => end,
                None => first,
            };
            self.starts.insert(partition.clone(), (owned[partition], start));
        }
        Ok(())
    }
}

/// One request a broker, for all of them.
fn look_up<'a>(
    client: &BaseConsumer<QuietContext>,
    partitions: impl Iterator<Item = &'a Partition>,
    which: Offset,
) -> KafkaResult<HashMap<Partition, i64>> {
    Ok(offsets(&client.offsets_for_times(list(partitions, which)?, ANSWER_WITHIN)?))
}

fn list<'a>(partitions: impl Iterator<Item = &'a Partition>, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(&partition.topic, partition.number, offset)?;
    }
    Ok(list)
}

fn offsets(list: &TopicPartitionList) -> HashMap<Partition, i64> {
    let found = list.elements().into_iter().filter_map(|element| match (element.error(), element.offset()) {
        (Ok(()), Offset::Offset(offset)) => {
            Some((Partition { topic: element.topic().into(), number: element.partition() }, offset))
        }
        _ => None,
    });
    found.collect()
}
