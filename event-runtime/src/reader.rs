//! Reads topics from outside of any consumer group: for people and tools that look, not for services that handle.
//!
//! Partitions are assigned by hand and reading commits nothing, so it disturbs no consumer. Blocking: an async caller runs
//! it on a thread of its own.

mod brokers;
mod position;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    util::Timeout,
};

pub use brokers::{Brokers, Committed};
pub use position::{Position, PositionError};

use shared_events::header;

use crate::{
    Origin, Record,
    config::{ConfigError, KafkaConfig},
};

/// What [`collect`] found.
#[derive(Debug, Default)]
pub struct Collected {
    /// The records wanted, in the order of time.
    pub records: Vec<Record>,
    /// Whether everything was read in time.
    pub complete: bool,
}

/// The records that `wanted` picks from what the topics that `topic` picks hold now, read within `within`.
///
/// # Errors
/// When no broker answers in that time.
pub fn collect(
    kafka: &KafkaConfig,
    topic: impl Fn(&str) -> bool,
    from: Position,
    within: Duration,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Collected, ReadError> {
    let until = Instant::now() + within;
    let brokers = Brokers::new(kafka, None)?.patience(within);
    let topics: BTreeMap<String, i32> = brokers.topics()?.into_iter().filter(|(name, _)| topic(name)).collect();
    let mut reader = Reader::open_on(brokers, &topics, from, Timestamp::now())?;
    let mut collected = Collected::default();
    while let Some(record) = reader.next_kept(until)? {
        if wanted(&record) {
            collected.records.push(record);
        }
    }
    collected.complete = reader.caught_up();
    collected.records.sort_by_key(|record| (record.timestamp, record.origin.offset));
    Ok(collected)
}

/// When the first record from each of these offsets on was written; none where there is no record. What is not known within
/// `within` is left out.
///
/// # Errors
/// When no broker answers, or a partition does not exist.
pub fn first_written(
    kafka: &KafkaConfig,
    offsets: &BTreeMap<(String, i32), i64>,
    within: Duration,
) -> Result<BTreeMap<(String, i32), Option<Timestamp>>, ReadError> {
    let until = Instant::now() + within;
    let mut reader = Reader::open_at(kafka, offsets)?;
    let mut written = BTreeMap::new();
    while written.len() < offsets.len() {
        let Some(record) = reader.next_kept(until)? else { break };
        written.entry((record.origin.topic.to_string(), record.origin.partition)).or_insert(record.timestamp);
    }
    if reader.caught_up() {
        for partition in offsets.keys() {
            written.entry(partition.clone()).or_insert(None);
        }
    }
    Ok(written)
}

/// How often a reader that waits looks whether there is anything left to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long nothing may come before partitions whose end the client has reported count as read.
const END_SETTLES_AFTER: Duration = Duration::from_secs(1);

/// Why topics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The configuration cannot be used.
    #[error("the Kafka configuration cannot be used")]
    Config(#[from] ConfigError),
    /// librdkafka refuses the configuration.
    #[error("librdkafka refuses the configuration")]
    Client(#[source] KafkaError),
    /// Nobody answers.
    #[error("no Kafka broker answers at {brokers}")]
    Unreachable {
        /// The addresses asked.
        brokers: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic is not there.
    #[error("topic {topic:?} does not exist; there are: {existing}")]
    NoTopic {
        /// The topic asked for.
        topic: String,
        /// Those that are there.
        existing: String,
    },
    /// A question was answered with an error.
    #[error("cannot read {what}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The group does not stand where it was told to.
    #[error("the group's offsets were not committed")]
    NotCommitted(#[source] KafkaError),
    /// Reading was disturbed; the client goes on trying by itself, and calling again is right.
    #[error("reading is disturbed, still trying")]
    Disturbed(#[source] KafkaError),
    /// The client is beyond repair.
    #[error("reading failed")]
    Fatal(#[source] KafkaError),
}

/// Reads records from every partition of some topics.
pub struct Reader {
    brokers: Brokers,
    // Where reading began.
    begins: TopicPartitionList,
    // What was there when reading began and has not been read yet: where it ends, by topic and partition.
    backlog: HashMap<(String, i32), i64>,
    // How many topics have a partition of this number, and how often the client said that one of them is at its end:
    // its events name no topic.
    ends: HashMap<i32, Ends>,
    quiet_since: Instant,
    since: Option<Timestamp>,
}

#[derive(Default)]
struct Ends {
    topics: usize,
    reported: usize,
}

impl Reader {
    /// Opens every partition of `topics` at `from`, where `now` is what `@-…` counts back from.
    ///
    /// # Errors
    /// When no broker answers, or a topic does not exist.
    pub fn open(kafka: &KafkaConfig, topics: &[String], from: Position, now: Timestamp) -> Result<Reader, ReadError> {
        let brokers = Brokers::new(kafka, None)?;
        let existing = brokers.topics()?;
        let wanted = topics.iter().map(|topic| match existing.get(topic) {
            Some(partitions) => Ok((topic.clone(), *partitions)),
            None => Err(ReadError::NoTopic {
                topic: topic.clone(),
                existing: existing.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            }),
        });
        Reader::open_on(brokers, &wanted.collect::<Result<_, _>>()?, from, now)
    }

    /// Opens these partitions only, each at its offset, or at the first one that is kept.
    ///
    /// # Errors
    /// When no broker answers, or a partition does not exist.
    pub fn open_at(kafka: &KafkaConfig, offsets: &BTreeMap<(String, i32), i64>) -> Result<Reader, ReadError> {
        let brokers = Brokers::new(kafka, None)?;
        let mut watermarks = BTreeMap::new();
        let mut begins = BTreeMap::new();
        for ((topic, partition), offset) in offsets {
            let (low, high) = brokers.watermarks(topic, *partition)?;
            watermarks.insert((topic.clone(), *partition), (low, high));
            begins.insert((topic.clone(), *partition), (*offset).clamp(low, high));
        }
        Reader::assign(brokers, begins, &watermarks, None)
    }

    fn open_on(
        brokers: Brokers,
        topics: &BTreeMap<String, i32>,
        from: Position,
        now: Timestamp,
    ) -> Result<Reader, ReadError> {
        let mut watermarks = BTreeMap::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                watermarks.insert((topic.clone(), partition), brokers.watermarks(topic, partition)?);
            }
        }
        let begins = brokers.offsets_at(&watermarks, from, now)?;
        Reader::assign(brokers, begins, &watermarks, from.since(now))
    }

    fn assign(
        brokers: Brokers,
        begins: BTreeMap<(String, i32), i64>,
        watermarks: &BTreeMap<(String, i32), (i64, i64)>,
        since: Option<Timestamp>,
    ) -> Result<Reader, ReadError> {
        let refused = |source| ReadError::Refused { what: "the topics' partitions".to_owned(), source };
        let mut list = TopicPartitionList::new();
        let mut backlog = HashMap::new();
        let mut ends = HashMap::<i32, Ends>::new();
        for ((topic, partition), offset) in begins {
            ends.entry(partition).or_default().topics += 1;
            list.add_partition_offset(&topic, partition, Offset::Offset(offset)).map_err(refused)?;
            let key = (topic, partition);
            if let Some((_, high)) = watermarks.get(&key).filter(|(_, high)| offset < *high) {
                backlog.insert(key, *high);
            }
        }
        brokers.consumer.assign(&list).map_err(refused)?;
        Ok(Reader { brokers, begins: list, backlog, ends, quiet_since: Instant::now(), since })
    }

    /// Goes on where it stands with a new client.
    fn renew(&mut self) -> Result<(), ReadError> {
        let position = self.brokers.consumer.position().map_err(ReadError::Fatal)?;
        self.brokers.consumer.renew().map_err(ReadError::Client)?;
        for read in position.elements() {
            if let Offset::Offset(_) = read.offset() {
                self.begins
                    .set_partition_offset(read.topic(), read.partition(), read.offset())
                    .map_err(ReadError::Fatal)?;
            }
        }
        self.brokers.consumer.assign(&self.begins).map_err(ReadError::Fatal)?;
        self.ends.values_mut().for_each(|ends| ends.reported = 0);
        Ok(())
    }

    /// Whether everything that was there when reading began has been read.
    pub fn caught_up(&self) -> bool {
        self.backlog.is_empty()
    }

    /// The next of the records that were there when reading began, through disturbances. None once all have been read, or
    /// at `until`: [`caught_up`](Self::caught_up) tells which.
    ///
    /// # Errors
    /// When the client is beyond repair.
    pub fn next_kept(&mut self, until: Instant) -> Result<Option<Record>, ReadError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.caught_up() || left.is_zero() {
                return Ok(None);
            }
            match self.next(left.min(LOOK_EVERY)) {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) | Err(ReadError::Disturbed(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next record, or none when none came within `wait`.
    ///
    /// # Errors
    /// [`ReadError::Disturbed`] when the connection suffers: call again. Any other error is final.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Record>, ReadError> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let record = match self.brokers.consumer.poll(Timeout::After(left)) {
                None => {
                    if self.brokers.consumer.is_stranded() {
                        self.renew()?;
                    }
                    self.settle_ends();
                    return Ok(None);
                }
                Some(Ok(message)) => to_record(&message, message.topic().into()),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.ends.entry(partition).or_default().reported += 1;
                    self.settle_ends();
                    if self.caught_up() {
                        return Ok(None);
                    }
                    continue;
                }
                Some(Err(error)) => {
                    // Without brokers, errors come without any pause between them.
                    std::thread::sleep(left.min(Duration::from_millis(100)));
                    return Err(classify(error));
                }
            };
            self.note(&record.origin);
            let too_old = matches!((self.since, record.timestamp), (Some(since), Some(time)) if time < since);
            if !too_old {
                return Ok(Some(record));
            }
            // Passing over a long past must not keep the caller waiting for longer than it asked.
            if self.caught_up() || left.is_zero() {
                return Ok(None);
            }
        }
    }

    fn note(&mut self, origin: &Origin) {
        self.quiet_since = Instant::now();
        let key = (origin.topic.to_string(), origin.partition);
        if self.backlog.get(&key).is_some_and(|end| origin.offset + 1 >= *end) {
            self.backlog.remove(&key);
        }
    }

    /// A partition may end with records that are never handed out (a transaction's marks, compacted ones): then only
    /// the client's end-of-partition events tell. When nothing has come for a while, and for every number of a partition
    /// still open as many ends were said as there are topics with that number, the rest is such an end.
    fn settle_ends(&mut self) {
        let at_end = |partition| self.ends.get(partition).is_some_and(|ends| ends.reported >= ends.topics);
        let reported = self.backlog.keys().all(|(_, partition)| at_end(partition));
        if reported && self.quiet_since.elapsed() >= END_SETTLES_AFTER {
            self.backlog.clear();
        }
    }
}

fn classify(error: KafkaError) -> ReadError {
    match error {
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::Authentication,
        )
        | KafkaError::MessageConsumptionFatal(_) => ReadError::Fatal(error),
        _ => ReadError::Disturbed(error),
    }
}

/// `topic` is the message's, which its records share.
pub(crate) fn to_record(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Record {
    let name = |name: &str| header::known(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed);
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (name(header.key), header.value.map(<[u8]>::to_vec))).collect());
    Record {
        origin: Origin { topic, partition: message.partition(), offset: message.offset() },
        timestamp: message.timestamp().to_millis().and_then(|time| Timestamp::from_millisecond(time).ok()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
