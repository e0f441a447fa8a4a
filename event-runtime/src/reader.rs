//! Reads topics from outside of any consumer group: for people and tools that look, not for services that handle.
//!
//! Partitions are assigned by hand and nothing is ever committed, so reading disturbs no consumer. Blocking: an async
//! caller runs it on a thread of its own.

mod position;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
    util::Timeout,
};

pub use position::{Position, PositionError};

use self::position::Begin;
use crate::{
    Origin, Record,
    config::{ConfigError, KafkaConfig},
};

/// How long one question to the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

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
    while !reader.caught_up() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match reader.next(left) {
            Ok(Some(record)) if wanted(&record) => collected.records.push(record),
            Ok(_) | Err(ReadError::Disturbed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    collected.complete = reader.caught_up();
    collected.records.sort_by_key(|record| (record.timestamp, record.origin.offset));
    Ok(collected)
}

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
    /// Reading was disturbed; the client goes on trying by itself, and calling again is right.
    #[error("reading is disturbed, still trying")]
    Disturbed(#[source] KafkaError),
    /// The client is beyond repair.
    #[error("reading failed")]
    Fatal(#[source] KafkaError),
}

/// Asks brokers about topics, partitions and offsets.
pub struct Brokers {
    consumer: BaseConsumer,
    addresses: String,
    patience: Duration,
}

/// Reads records from every partition of some topics.
pub struct Reader {
    consumer: BaseConsumer,
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

impl Brokers {
    /// A client for `kafka`; connects when it is first used. With a `group`, [`committed`](Self::committed) answers for
    /// that group; the group is never joined.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(kafka: &KafkaConfig, group: Option<&str>) -> Result<Brokers, ReadError> {
        let mut client = kafka.client()?;
        client
            // The client insists on a group even when partitions are assigned by hand; nothing is committed to it.
            .set("group.id", group.unwrap_or("event-runtime-reader"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false");
        let consumer = client.create().map_err(ReadError::Client)?;
        Ok(Brokers { consumer, addresses: kafka.brokers.clone(), patience: ANSWER_WITHIN })
    }

    /// The same, waiting so long for each answer instead of eight seconds.
    pub fn patience(mut self, patience: Duration) -> Brokers {
        self.patience = patience;
        self
    }

    /// Every topic but Kafka's own, with its number of partitions, by name.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn topics(&self) -> Result<BTreeMap<String, i32>, ReadError> {
        // All of them: asking for one by name creates it on brokers that create topics by themselves.
        let metadata = self
            .consumer
            .fetch_metadata(None, Timeout::After(self.patience))
            .map_err(|source| ReadError::Unreachable { brokers: self.addresses.clone(), source })?;
        let topics = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
        Ok(topics.map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)).collect())
    }

    /// The first offset kept and the one after the last, of one partition.
    ///
    /// # Errors
    /// When the broker does not answer, or with an error.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), ReadError> {
        self.patiently(|timeout| self.consumer.fetch_watermarks(topic, partition, timeout))
            .map_err(|source| ReadError::Refused { what: format!("the offsets of {topic}[{partition}]"), source })
    }

    /// Where the group stands in these partitions; `None` where it has committed nothing.
    ///
    /// # Errors
    /// When the group's coordinator does not answer, or with an error.
    pub fn committed(
        &self,
        partitions: impl IntoIterator<Item = (String, i32)>,
    ) -> Result<BTreeMap<(String, i32), Option<i64>>, ReadError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(&topic, partition);
        }
        let refused = |source| ReadError::Refused { what: "the group's committed offsets".to_owned(), source };
        let answer =
            self.patiently(|timeout| self.consumer.committed_offsets(list.clone(), timeout)).map_err(refused)?;
        let elements = answer.elements();
        let offsets = elements.iter().map(|element| {
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            ((element.topic().to_owned(), element.partition()), offset)
        });
        Ok(offsets.collect())
    }

    /// Asks again while leadership settles: for a second or so after a topic is made, or a broker has gone, the brokers
    /// that are asked are not yet, or no longer, the ones to answer.
    fn patiently<T>(&self, ask: impl Fn(Timeout) -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        let until = Instant::now() + self.patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match ask(Timeout::After(left.max(Duration::from_millis(100)))) {
                Err(error) if settles(&error) && !left.is_zero() => {
                    std::thread::sleep(Duration::from_millis(100));
                    // The client itself looks for the new leader at its leisure.
                    self.consumer.fetch_metadata(None, Timeout::After(left)).ok();
                }
                answer => return answer,
            }
        }
    }

    /// The first offset of a record from `moment` or later in each of these partitions, given with their watermarks.
    ///
    /// Librdkafka's mock cluster answers every look-up by time with "the end". A partition that holds records has one
    /// since the beginning of time, so such an answer to that question unmasks it, and the partition is read from its
    /// start instead: the caller passes over what is too old.
    fn at_time(
        &self,
        partitions: &HashMap<(String, i32), (i64, i64)>,
        moment: Timestamp,
    ) -> Result<Vec<(String, i32, i64)>, ReadError> {
        let millisecond = moment.as_millisecond().max(0);
        let asked = self.look_up(partitions, millisecond)?;
        let probed = self.look_up(partitions, 0)?;
        let begins = partitions.iter().map(|(key, &(low, high))| {
            let offset = match (asked.get(key), probed.get(key)) {
                (Some(Offset::Offset(offset)), _) if *offset < high => *offset,
                (_, Some(Offset::Offset(first))) if *first < high => high,
                _ => low,
            };
            (key.0.clone(), key.1, offset)
        });
        Ok(begins.collect())
    }

    fn look_up(
        &self,
        partitions: &HashMap<(String, i32), (i64, i64)>,
        millisecond: i64,
    ) -> Result<HashMap<(String, i32), Offset>, ReadError> {
        let refused = |source| ReadError::Refused { what: "offsets by time".to_owned(), source };
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions.keys() {
            list.add_partition_offset(topic, *partition, Offset::Offset(millisecond)).map_err(refused)?;
        }
        let answer =
            self.patiently(|timeout| self.consumer.offsets_for_times(list.clone(), timeout)).map_err(refused)?;
        let elements = answer.elements();
        Ok(elements.iter().map(|found| ((found.topic().to_owned(), found.partition()), found.offset())).collect())
    }
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

    fn open_on(
        brokers: Brokers,
        topics: &BTreeMap<String, i32>,
        from: Position,
        now: Timestamp,
    ) -> Result<Reader, ReadError> {
        let mut watermarks = HashMap::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                watermarks.insert((topic.clone(), partition), brokers.watermarks(topic, partition)?);
            }
        }
        let mut begins = Vec::new();
        let mut by_time = HashMap::new();
        for ((topic, partition), (low, high)) in &watermarks {
            match from.begin(*low, *high, now) {
                Begin::Offset(offset) => begins.push((topic.clone(), *partition, offset)),
                Begin::LookUp(_) if low == high => begins.push((topic.clone(), *partition, *high)),
                Begin::LookUp(_) => {
                    by_time.insert((topic.clone(), *partition), (*low, *high));
                }
            }
        }
        let since = from.since(now);
        if let Some(moment) = since.filter(|_| !by_time.is_empty()) {
            begins.extend(brokers.at_time(&by_time, moment)?);
        }
        Reader::assign(brokers.consumer, begins, &watermarks, since)
    }

    fn assign(
        consumer: BaseConsumer,
        begins: Vec<(String, i32, i64)>,
        watermarks: &HashMap<(String, i32), (i64, i64)>,
        since: Option<Timestamp>,
    ) -> Result<Reader, ReadError> {
        let refused = |source| ReadError::Refused { what: "the topics' partitions".to_owned(), source };
        let mut list = TopicPartitionList::new();
        let mut backlog = HashMap::new();
        let mut ends = HashMap::<i32, Ends>::new();
        for (topic, partition, offset) in begins {
            ends.entry(partition).or_default().topics += 1;
            list.add_partition_offset(&topic, partition, Offset::Offset(offset)).map_err(refused)?;
            let key = (topic, partition);
            if let Some((_, high)) = watermarks.get(&key).filter(|(_, high)| offset < *high) {
                backlog.insert(key, *high);
            }
        }
        consumer.assign(&list).map_err(refused)?;
        Ok(Reader { consumer, backlog, ends, quiet_since: Instant::now(), since })
    }

    /// Whether everything that was there when reading began has been read.
    pub fn caught_up(&self) -> bool {
        self.backlog.is_empty()
    }

    /// The next record, or none when none came within `wait`.
    ///
    /// # Errors
    /// [`ReadError::Disturbed`] when the connection suffers: call again. Any other error is final.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Record>, ReadError> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let record = match self.consumer.poll(Timeout::After(left)) {
                None => {
                    self.settle_ends();
                    return Ok(None);
                }
                Some(Ok(message)) => to_record(&message),
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
        let key = (origin.topic.clone(), origin.partition);
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

fn settles(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let settling = [
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::UnknownTopicOrPartition,
        Code::UnknownPartition,
        Code::CoordinatorLoadInProgress,
        Code::CoordinatorNotAvailable,
        Code::NotCoordinator,
    ];
    error.rdkafka_error_code().is_some_and(|code| settling.contains(&code))
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

pub(crate) fn to_record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        origin: Origin { topic: message.topic().to_owned(), partition: message.partition(), offset: message.offset() },
        timestamp: message.timestamp().to_millis().and_then(|time| Timestamp::from_millisecond(time).ok()),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
