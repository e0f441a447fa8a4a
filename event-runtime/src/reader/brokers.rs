use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionListElem,
    util::Timeout,
};

use super::{Position, ReadError, position::Begin};
use crate::{
    config::KafkaConfig,
    context::{QuietContext, Renewable},
};

/// How long one question to the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// What a group has committed of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Everything below is done.
    pub offset: i64,
    /// What the group noted beside it, for itself. Brokers take 4096 bytes by default.
    pub metadata: String,
}

/// Asks brokers about topics, partitions and offsets.
pub struct Brokers {
    pub(super) consumer: Renewable<BaseConsumer<QuietContext>>,
    addresses: String,
    patience: Duration,
}

impl Brokers {
    /// A client for `kafka`; connects when it is first used. With a `group`, [`committed`](Self::committed) answers for
    /// that group, and [`commit`](Self::commit) speaks for it; the group is never joined.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(kafka: &KafkaConfig, group: Option<&str>) -> Result<Brokers, ReadError> {
        let mut client = kafka.client()?;
        client
            // The client insists on a group even when partitions are assigned by hand.
            .set("group.id", group.unwrap_or("event-runtime-reader"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false");
        let consumer = Renewable::connect(client).map_err(ReadError::Client)?;
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
        self.committed_as(partitions, |_, offset| offset)
    }

    /// The same, with what the group noted beside its offsets; to be asked of a group that notes text.
    ///
    /// # Errors
    /// When the group's coordinator does not answer, or with an error.
    pub fn committed_with_metadata(
        &self,
        partitions: impl IntoIterator<Item = (String, i32)>,
    ) -> Result<BTreeMap<(String, i32), Option<Committed>>, ReadError> {
        self.committed_as(partitions, |element, offset| Committed { offset, metadata: element.metadata().to_owned() })
    }

    fn committed_as<T>(
        &self,
        partitions: impl IntoIterator<Item = (String, i32)>,
        read: impl Fn(&TopicPartitionListElem<'_>, i64) -> T,
    ) -> Result<BTreeMap<(String, i32), Option<T>>, ReadError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(&topic, partition);
        }
        let refused = |source| ReadError::Refused { what: "the group's committed offsets".to_owned(), source };
        let answer =
            self.patiently(|timeout| self.consumer.committed_offsets(list.clone(), timeout)).map_err(refused)?;
        let elements = answer.elements();
        let offsets = elements.iter().map(|element| {
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(read(element, offset)),
                _ => None,
            };
            ((element.topic().to_owned(), element.partition()), committed)
        });
        Ok(offsets.collect())
    }

    /// Says for the group that everything below these offsets is done. The group must have no members.
    ///
    /// # Errors
    /// When the group's coordinator does not take it; the group may stand there all the same.
    pub fn commit(&self, offsets: &BTreeMap<(String, i32), Committed>) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), committed) in offsets {
            let offset = Offset::Offset(committed.offset);
            list.add_partition_offset(topic, *partition, offset).map_err(ReadError::NotCommitted)?;
            if let Some(mut element) = list.find_partition(topic, *partition) {
                element.set_metadata(&committed.metadata);
            }
        }
        self.patiently(|_| self.consumer.commit(&list, CommitMode::Sync)).map_err(ReadError::NotCommitted)
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

    /// Where `position` is in each of these partitions, given with their watermarks; `now` is what `@-…` counts back from.
    ///
    /// # Errors
    /// When a look-up by time fails.
    pub fn offsets_at(
        &self,
        partitions: &BTreeMap<(String, i32), (i64, i64)>,
        position: Position,
        now: Timestamp,
    ) -> Result<BTreeMap<(String, i32), i64>, ReadError> {
        let mut offsets = BTreeMap::new();
        let mut by_time = HashMap::new();
        for (partition, &(low, high)) in partitions {
            match position.begin(low, high, now) {
                Begin::Offset(offset) => drop(offsets.insert(partition.clone(), offset)),
                Begin::LookUp(_) if low == high => drop(offsets.insert(partition.clone(), high)),
                Begin::LookUp(_) => drop(by_time.insert(partition.clone(), (low, high))),
            }
        }
        if let Some(moment) = position.since(now).filter(|_| !by_time.is_empty()) {
            offsets.extend(self.at_time(&by_time, moment)?);
        }
        Ok(offsets)
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
    ) -> Result<BTreeMap<(String, i32), i64>, ReadError> {
        let millisecond = moment.as_millisecond().max(0);
        let asked = self.look_up(partitions, millisecond)?;
        let probed = self.look_up(partitions, 0)?;
        let begins = partitions.iter().map(|(key, &(low, high))| {
            let offset = match (asked.get(key), probed.get(key)) {
                (Some(Offset::Offset(offset)), _) if *offset < high => *offset,
                (_, Some(Offset::Offset(first))) if *first < high => high,
                _ => low,
            };
            (key.clone(), offset)
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
