//! A topic, and groups that handle it as long as nothing is broken.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use event_runtime::{
    Clock, Consumer, ConsumerBuilder, ConsumerContext, Delivery, HandlerError, Origin, Outbox, RetryPolicy,
    TransactionalHandler, Tx,
    config::KafkaConfig,
    consumer::ConsumerMetrics,
    producer::{OutgoingRecord, Producer},
    reader::Brokers,
    topics::{TopicSpec, ensure},
};
use futures_util::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::{Deserialize, Serialize};
use shared_events::{
    Envelope, Event, EventId, Topic,
    topics::{dead_letter_topic, quarantine_topic},
};
use test_support::{MockKafka, RealKafka, TempDatabase, eventually};

/// Long enough for a busy machine; a test that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TOPIC: Topic = Topic { name: "notes", partitions: 3, retention: Duration::from_secs(3600) };
pub const FAILING: &str = "notes-service";
pub const OTHER: &str = "other-service";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Noted {
    pub key: String,
    pub number: usize,
}

impl Event for Noted {
    const TYPE: &'static str = "note.written";
    const TOPIC: Topic = TOPIC;

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// A broker of the test's own: real where there are real servers to be tested on.
pub enum Kafka {
    Embedded(MockKafka),
    Real(RealKafka),
}

impl Kafka {
    pub async fn start() -> Kafka {
        let groups = [FAILING, OTHER];
        let dead = groups.map(|group| (dead_letter_topic(TOPIC.name, group), TOPIC.partitions));
        let quarantine = groups.map(|group| (quarantine_topic(TOPIC.name, group), 1));
        let mut topics: Vec<(String, i32)> = [dead, quarantine].concat();
        topics.push((TOPIC.name.to_owned(), TOPIC.partitions));
        if std::env::var_os("TEST_KAFKA_BROKERS").is_none() {
            let kafka = MockKafka::empty(1);
            topics.iter().for_each(|(name, partitions)| kafka.create(name, *partitions));
            return Kafka::Embedded(kafka);
        }
        let kafka = RealKafka::start().await;
        let spec = |(name, partitions)| TopicSpec { name, partitions, retention: TOPIC.retention };
        ensure(&kafka.config(), &topics.into_iter().map(spec).collect::<Vec<_>>()).await.unwrap();
        Kafka::Real(kafka)
    }

    pub fn is_real(&self) -> bool {
        matches!(self, Kafka::Real(_))
    }

    pub fn config(&self) -> KafkaConfig {
        match self {
            Kafka::Embedded(kafka) => kafka.config(),
            Kafka::Real(kafka) => kafka.config(),
        }
    }

    /// Publishes so many notes of ten keys, numbered.
    pub async fn publish(&self, count: usize) -> Vec<EventId> {
        let producer = Producer::new(&self.config()).unwrap();
        let note = |number| Noted { key: format!("key-{}", number % 10), number };
        let (ids, records): (Vec<_>, Vec<_>) = (0..count).map(note).map(|note| record(&note.key, &note)).unzip();
        let sent = join_all(records.into_iter().map(|record| producer.send(record))).await;
        assert!(sent.iter().all(Result::is_ok), "{:?}", sent.into_iter().find(Result::is_err));
        ids
    }

    /// Publishes `note` under this key, and says where.
    pub async fn publish_under(&self, key: &str, note: &Noted) -> (EventId, Origin) {
        let (id, record) = record(key, note);
        (id, Producer::new(&self.config()).unwrap().send(record).await.unwrap())
    }

    /// How many records a topic holds.
    pub async fn records(&self, topic: &str) -> usize {
        let ends = self.ends(topic).await;
        ends.values().sum::<i64>() as usize
    }

    /// The end of every partition.
    pub async fn ends(&self, topic: &str) -> BTreeMap<(String, i32), i64> {
        let (kafka, topic) = (self.config(), topic.to_owned());
        let ask = move || {
            let brokers = Brokers::new(&kafka, None).unwrap();
            let partitions = 0..brokers.topics().unwrap()[&topic];
            let end = |partition| ((topic.clone(), partition), brokers.watermarks(&topic, partition).unwrap().1);
            partitions.map(end).collect()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    pub async fn wait_for_records(&self, topic: &str, count: usize) {
        eventually(PATIENCE, "record on the topic", async || match self.records(topic).await {
            enough if enough >= count => Ok(()),
            few => Err(few),
        })
        .await;
    }

    /// The sum of the offsets a group has committed on a topic.
    pub async fn committed(&self, group: &str, topic: &str) -> usize {
        let partitions: Vec<_> = self.ends(topic).await.into_keys().collect();
        let (kafka, group) = (self.config(), group.to_owned());
        let ask = move || Brokers::new(&kafka, Some(&group)).unwrap().committed(partitions).unwrap();
        let offsets = tokio::task::spawn_blocking(ask).await.unwrap();
        offsets.into_values().flatten().sum::<i64>() as usize
    }
}

fn record(key: &str, note: &Noted) -> (EventId, OutgoingRecord) {
    let envelope = Envelope::new(note, "test", Clock::system().now());
    let headers = envelope.to_headers().into_iter();
    let record = OutgoingRecord {
        topic: TOPIC.name.to_owned(),
        partition: None,
        key: Some(key.as_bytes().to_vec()),
        value: Some(serde_json::to_vec(note).unwrap()),
        headers: headers.map(|(name, value)| (name.into(), Some(value.into_bytes()))).collect(),
    };
    (envelope.id, record)
}

/// A running consumer.
pub struct Group {
    pub broken: Arc<AtomicBool>,
    handled: Arc<Mutex<Vec<(EventId, Noted)>>>,
    registry: Registry,
    name: &'static str,
    _consumer: Consumer,
    _database: TempDatabase,
}

struct Handler {
    broken: Arc<AtomicBool>,
    handled: Arc<Mutex<Vec<(EventId, Noted)>>>,
}

impl TransactionalHandler for Handler {
    type Event = Noted;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::limited(0)
    }

    async fn handle(&self, _tx: &mut Tx, _outbox: &mut Outbox, delivery: &Delivery<Noted>) -> Result<(), HandlerError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(match delivery.event.number % 2 {
                0 => HandlerError::retry("the shelf is full"),
                _ => HandlerError::reject("nobody knows such a note"),
            });
        }
        self.handled.lock().unwrap().push((delivery.envelope.id, delivery.event.clone()));
        Ok(())
    }
}

impl Group {
    pub async fn start(kafka: &Kafka, name: &'static str, broken: bool) -> Group {
        let folder = TempDatabase::new();
        let database = folder.migrated(&[]).await;
        let (broken, handled) = (Arc::new(AtomicBool::new(broken)), Arc::new(Mutex::new(Vec::new())));
        let (metrics, mut registry) = (ConsumerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let config = kafka.config();
        let producer = Producer::new(&config).unwrap();
        let context = ConsumerContext { kafka: config, producer, clock: Clock::system(), metrics };
        let handler = Handler { broken: broken.clone(), handled: handled.clone() };
        let consumer = ConsumerBuilder::new(name).transactional(&database, handler);
        // Many dead letters are what these tests begin with.
        let consumer = consumer.flood_limits(None).breaker(None).start(context).unwrap();
        Group { broken, handled, registry, name, _consumer: consumer, _database: folder }
    }

    /// Waits until it is done with everything on the topic.
    pub async fn wait_until_done(&self, kafka: &Kafka) {
        eventually(PATIENCE, "lag of 0", async || {
            let (there, committed) = (kafka.records(TOPIC.name).await, kafka.committed(self.name, TOPIC.name).await);
            if there == committed { Ok(()) } else { Err((self.name, committed, there)) }
        })
        .await;
    }

    pub fn handled(&self) -> Vec<EventId> {
        self.handled.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }

    /// The numbers of each key's notes, in the order in which they were handled.
    pub fn numbers(&self) -> HashMap<String, Vec<usize>> {
        let mut numbers: HashMap<String, Vec<usize>> = HashMap::new();
        for (_, note) in self.handled.lock().unwrap().iter() {
            numbers.entry(note.key.clone()).or_default().push(note.number);
        }
        numbers
    }

    /// The value of a metric, given as it is printed, whatever its labels.
    pub fn metric(&self, name: &str) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }
}
