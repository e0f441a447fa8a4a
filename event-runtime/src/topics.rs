//! Creates the topics a service needs, and deletes what an operator does not.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};
use shared_events::{
    Group, Topic,
    topics::{dead_letter_topic, quarantine_topic},
};

use crate::{
    config::{ConfigError, KafkaConfig},
    context::QuietContext,
};

/// A topic as it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How long records are kept.
    pub retention: Duration,
}

impl From<Topic> for TopicSpec {
    fn from(topic: Topic) -> TopicSpec {
        TopicSpec { name: topic.name.to_owned(), partitions: topic.partitions, retention: topic.retention }
    }
}

impl TopicSpec {
    /// Where `group` puts what it could not handle of `topic`. Dead letters are kept four times as long: somebody has to
    /// find the time to look at them.
    pub fn dead_letters(topic: Topic, group: &str) -> TopicSpec {
        TopicSpec { name: dead_letter_topic(topic.name, group), retention: topic.retention * 4, ..topic.into() }
    }

    /// Where an operator's tool puts those of them that are not to be replayed any more.
    pub fn quarantine(topic: Topic, group: &str) -> TopicSpec {
        let name = quarantine_topic(topic.name, group);
        TopicSpec { name, partitions: 1, ..TopicSpec::dead_letters(topic, group) }
    }

    /// All dead-letter topics of `group`.
    pub fn dead_letters_of(group: &Group) -> impl Iterator<Item = TopicSpec> {
        group.topics.iter().map(|topic| TopicSpec::dead_letters(*topic, group.name))
    }
}

/// Why topics are not there.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The brokers do not answer; worth another attempt.
    #[error("Kafka at {brokers} does not answer")]
    Unreachable {
        /// The configured addresses.
        brokers: String,
        /// What the client said.
        source: KafkaError,
    },
    /// The brokers answer and were too busy to create a topic (no controller yet, say); worth another attempt. The
    /// embedded broker always answers so: it takes topics through its own interface only.
    #[error("topic {topic} does not exist and was not created in time")]
    NotInTime {
        /// Which.
        topic: String,
        /// What the client said.
        source: KafkaError,
    },
    /// A topic could not be created.
    #[error("topic {topic} could not be created")]
    Refused {
        /// Which.
        topic: String,
        /// What the broker said.
        source: KafkaError,
    },
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client could not be made.
    #[error("the Kafka client cannot be configured")]
    Client(#[source] KafkaError),
}

impl TopicError {
    /// Whether another attempt may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self, TopicError::Unreachable { .. } | TopicError::NotInTime { .. })
    }
}

/// Creates those of `wanted` that are missing, and returns their names. Others are left as they are.
///
/// # Errors
/// When topics are missing; [`TopicError::may_pass`] tells whether to try again.
pub async fn ensure(kafka: &KafkaConfig, wanted: &[TopicSpec]) -> Result<Vec<String>, TopicError> {
    let mut config = kafka.client()?;
    // Looking must not create: the broker would choose the number of partitions.
    config.set("allow.auto.create.topics", "false");
    let admin: Admin = Arc::new(QuietContext::connect(&config).map_err(TopicError::Client)?.0);
    let unreachable = |source| TopicError::Unreachable { brokers: kafka.brokers.clone(), source };

    let known = names(&admin).await.map_err(unreachable)?;
    let missing: Vec<&TopicSpec> = wanted.iter().filter(|topic| !known.contains(&topic.name)).collect();
    let Some(first) = missing.first() else { return Ok(Vec::new()) };
    let results = create(&admin, &missing).await.map_err(|source| {
        let topic = first.name.clone();
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnsupportedFeature) => TopicError::Refused { topic, source },
            _ => TopicError::NotInTime { topic, source },
        }
    })?;
    let mut created = Vec::new();
    for result in results {
        match result {
            Ok(topic) => created.push(topic),
            // Another instance was quicker.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code @ (RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::NotController))) => {
                return Err(TopicError::NotInTime { topic, source: KafkaError::AdminOp(code) });
            }
            Err((topic, code)) => return Err(TopicError::Refused { topic, source: KafkaError::AdminOp(code) }),
        }
    }
    Ok(created)
}

/// Deletes the records below these offsets, by topic and partition.
///
/// # Errors
/// When a broker does not do it. Some partitions may have been cut all the same; doing it again does no harm.
pub async fn delete_records(kafka: &KafkaConfig, before: &BTreeMap<(String, i32), i64>) -> Result<(), DeleteError> {
    let admin: Admin = Arc::new(QuietContext::connect(&kafka.client()?).map_err(DeleteError::Client)?.0);
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in before {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(DeleteError::Refused)?;
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let answer = admin.delete_records(&list, &options).await.map_err(DeleteError::Refused)?;
    for element in answer.elements() {
        match element.error().err().and_then(|error| error.rdkafka_error_code()) {
            None => {}
            Some(RDKafkaErrorCode::UnsupportedFeature) => return Err(DeleteError::Unsupported),
            Some(code) => return Err(DeleteError::Refused(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Why records are still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client could not be made.
    #[error("the Kafka client cannot be configured")]
    Client(#[source] KafkaError),
    /// The broker knows no such request.
    #[error("this broker cannot delete records; the embedded one forgets them when it ends")]
    Unsupported,
    /// The broker says no, or does not answer in time.
    #[error("the records were not deleted")]
    Refused(#[source] KafkaError),
}

type Admin = Arc<AdminClient<QuietContext>>;

async fn names(admin: &Admin) -> Result<HashSet<String>, KafkaError> {
    let admin = Arc::clone(admin);
    let read = move || {
        let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    };
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(KafkaError::Canceled))
}

async fn create(
    admin: &Admin,
    topics: &[&TopicSpec],
) -> Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, KafkaError> {
    let retention: Vec<String> = topics.iter().map(|topic| topic.retention.as_millis().to_string()).collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&retention)
        .map(|(topic, retention)| {
            // Replication −1: as many copies as the broker is configured to make.
            NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1)).set("retention.ms", retention)
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    admin.create_topics(&new, &options).await
}

const TIMEOUT: Duration = Duration::from_secs(5);
