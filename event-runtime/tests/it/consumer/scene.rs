//! A broker, a database, and handlers that do what the note they are given says.

use std::{
    fmt::Write as _,
    future::pending,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use event_runtime::{
    Clock, Consumer, ConsumerBuilder, ConsumerContext, Database, Delivery, EffectHandler, HandlerError, HeaderName,
    Outbox, PlainHandler, Prepared, Record, RetryPolicy, TransactionalHandler, Tx,
    config::KafkaConfig,
    consumer::ConsumerMetrics,
    producer::{OutgoingRecord, Producer},
    topics::{self, TopicSpec},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaResult,
};
use serde::{Deserialize, Serialize};
use shared_events::{Envelope, Event, Topic};
use test_support::{MockKafka, RealKafka, TempDatabase, eventually, records};

pub const GROUP: &str = "notes-service";
pub const DEAD_LETTERS: &str = "notes.notes-service.dlt";
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const TOPIC: Topic = Topic { name: "notes", partitions: 1, retention: Duration::from_secs(3600) };

/// A note says by its first word what becomes of it: `fail 2 …` fails twice; `reject`, `panic`, `hang` do so once or for
/// ever; `slow 300 …` takes 300 ms; `block` and `overdue` block the thread at the first attempt, until they are let go and
/// until their time is up; all others work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub key: String,
    pub text: String,
}

impl Note {
    pub fn new(key: &str, text: &str) -> Note {
        Note { key: key.to_owned(), text: text.to_owned() }
    }
}

impl Event for Note {
    const TYPE: &'static str = "note.written";
    const TOPIC: Topic = TOPIC;

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// What handlers share with the test.
#[derive(Clone, Default)]
pub struct Script(Arc<Shared>);

#[derive(Default)]
pub struct Shared {
    handled: Mutex<Vec<(Note, u32, Instant)>>,
    /// By attempt: until when it may run, and how long that is.
    pub deadlines: Mutex<Vec<(tokio::time::Instant, Duration)>>,
    /// Whether whoever blocks is let go.
    let_go: (Mutex<bool>, Condvar),
    exhausted: Mutex<Vec<String>>,
    pub effects: AtomicUsize,
    pub begun: AtomicUsize,
    pub running: AtomicUsize,
    pub away: AtomicBool,
    /// What it depends on refuses, and it does not recognise that as an outage.
    pub refused: AtomicBool,
}

impl std::ops::Deref for Script {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Script {
    pub async fn play(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        self.deadlines.lock().unwrap().push((delivery.deadline, delivery.remaining()));
        let outcome = self.act(delivery).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    async fn act(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(HandlerError::unavailable("nobody answers"));
        }
        if self.refused.load(Ordering::SeqCst) {
            return Err(HandlerError::retry("refused"));
        }
        let mut words = delivery.event.text.split(' ');
        let word = words.next().unwrap_or_default();
        let number: u64 = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        match word {
            "fail" if u64::from(delivery.attempt) <= number => return Err(HandlerError::retry("not this time")),
            "reject" => return Err(HandlerError::reject("never")),
            "panic" if delivery.attempt == 1 => panic!("a panic on purpose"),
            "hang" if delivery.attempt == 1 => pending().await,
            "block" if delivery.attempt == 1 => self.block(),
            "overdue" if delivery.attempt == 1 => while !delivery.remaining().is_zero() {},
            "slow" => tokio::time::sleep(Duration::from_millis(number)).await,
            _ => {}
        }
        self.handled.lock().unwrap().push((delivery.event.clone(), delivery.attempt, Instant::now()));
        Ok(())
    }

    /// Not for ever: a test that fails is to end.
    fn block(&self) {
        let (let_go, changed) = &self.let_go;
        let kept = changed.wait_timeout_while(let_go.lock().unwrap(), 3 * PATIENCE, |let_go| !*let_go);
        drop(kept.unwrap());
    }

    pub fn let_go(&self) {
        let (let_go, changed) = &self.let_go;
        *let_go.lock().unwrap() = true;
        changed.notify_all();
    }

    /// Everything that was handled, as `key:text`.
    pub fn handled(&self) -> Vec<String> {
        self.handled.lock().unwrap().iter().map(|(note, _, _)| format!("{}:{}", note.key, note.text)).collect()
    }

    /// The texts of one key, in the order in which they were handled.
    pub fn of_key(&self, key: &str) -> Vec<String> {
        let handled = self.handled.lock().unwrap();
        handled.iter().filter(|(note, ..)| note.key == key).map(|(note, ..)| note.text.clone()).collect()
    }

    pub fn attempts(&self) -> Vec<u32> {
        self.handled.lock().unwrap().iter().map(|(_, attempt, _)| *attempt).collect()
    }

    pub fn times(&self) -> Vec<Instant> {
        self.handled.lock().unwrap().iter().map(|(_, _, time)| *time).collect()
    }

    pub fn exhausted(&self) -> Vec<String> {
        self.exhausted.lock().unwrap().clone()
    }

    pub async fn wait_for(&self, count: usize) {
        eventually(PATIENCE, "handling of everything", async || {
            let handled = self.handled();
            if handled.len() >= count { Ok(()) } else { Err(handled) }
        })
        .await;
    }
}

/// The script, in a transaction. Tries a failed note twice again, soon.
pub struct Transactional(pub Script);

/// The first one and the retries.
pub const RETRY_ATTEMPTS: u32 = 3;
pub const RETRY: RetryPolicy =
    RetryPolicy::limited(RETRY_ATTEMPTS - 1).backoff(Duration::from_millis(100), Duration::from_millis(300));

impl TransactionalHandler for Transactional {
    type Event = Note;

    fn retry(&self) -> RetryPolicy {
        RETRY
    }

    async fn handle(&self, _tx: &mut Tx, _outbox: &mut Outbox, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        self.0.play(delivery).await
    }

    async fn exhausted(
        &self,
        _tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<Note>,
        error: &HandlerError,
    ) -> Result<(), HandlerError> {
        let note = format!("{}: {}", delivery.event.text, error.source_error());
        self.0.exhausted.lock().unwrap().push(note);
        Ok(())
    }
}

/// The script, without a database.
pub struct Plain(pub Script);

impl PlainHandler for Plain {
    type Event = Note;

    fn retry(&self) -> RetryPolicy {
        RETRY
    }

    async fn handle(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        self.0.play(delivery).await
    }
}

/// Counts effects; what the note says happens when the effect is completed.
pub struct Effect(pub Script);

impl EffectHandler for Effect {
    type Event = Note;
    type Plan = ();
    type Outcome = ();

    fn retry(&self) -> RetryPolicy {
        RETRY
    }

    async fn prepare(&self, _tx: &mut Tx, delivery: &Delivery<Note>) -> Result<Prepared<()>, HandlerError> {
        Ok(if delivery.event.text == "nothing" { Prepared::Nothing } else { Prepared::Do(()) })
    }

    async fn effect(&self, _plan: &(), _delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        self.0.effects.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn complete(
        &self,
        _tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<Note>,
        (): (),
    ) -> Result<(), HandlerError> {
        self.0.play(delivery).await
    }
}

/// Embedded; of the scene's own and real where TEST_KAFKA_BROKERS is set.
enum Broker {
    Embedded(MockKafka),
    Real(RealKafka),
}

impl Broker {
    /// With the topic of notes and its dead letters. The group protocol of real ones is classic, or as
    /// TEST_GROUP_PROTOCOL says.
    async fn start(partitions: i32) -> (Broker, KafkaConfig) {
        if std::env::var_os("TEST_KAFKA_BROKERS").is_none() {
            return Broker::embedded(partitions);
        }
        let broker = RealKafka::start().await;
        let mut kafka = broker.config();
        if let Ok(protocol) = std::env::var("TEST_GROUP_PROTOCOL") {
            kafka.settings.push(format!("group.protocol={protocol}"));
        }
        let notes = TopicSpec { partitions, ..TopicSpec::from(TOPIC) };
        let dead_letters = TopicSpec { name: DEAD_LETTERS.to_owned(), ..TopicSpec::from(TOPIC) };
        topics::ensure(&kafka, &[notes, dead_letters]).await.unwrap();
        (Broker::Real(broker), kafka)
    }

    fn embedded(partitions: i32) -> (Broker, KafkaConfig) {
        let broker = MockKafka::empty(1);
        broker.create(TOPIC.name, partitions);
        broker.create(DEAD_LETTERS, 1);
        let kafka = broker.config();
        (Broker::Embedded(broker), kafka)
    }
}

pub struct Scene {
    pub kafka: KafkaConfig,
    pub database: Database,
    pub script: Script,
    broker: Broker,
    producer: Producer,
    metrics: ConsumerMetrics,
    registry: Registry,
    _folder: TempDatabase,
}

impl Scene {
    pub async fn new() -> Scene {
        Scene::with_partitions(TOPIC.partitions).await
    }

    pub async fn with_partitions(partitions: i32) -> Scene {
        Scene::on(Broker::start(partitions).await).await
    }

    /// Always on the embedded broker: for faults that only it can play.
    pub async fn embedded() -> Scene {
        Scene::embedded_with(TOPIC.partitions).await
    }

    pub async fn embedded_with(partitions: i32) -> Scene {
        Scene::on(Broker::embedded(partitions)).await
    }

    async fn on((broker, kafka): (Broker, KafkaConfig)) -> Scene {
        let folder = TempDatabase::new();
        let database = Database::connect_lazy(&folder.url()).unwrap();
        database.migrate(&[]).await.unwrap();
        let (metrics, mut registry) = (ConsumerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let producer = Producer::new(&kafka).unwrap();
        let script = Script::default();
        Scene { kafka, database, script, broker, producer, metrics, registry, _folder: folder }
    }

    /// The embedded broker.
    pub fn mock(&self) -> &MockKafka {
        match &self.broker {
            Broker::Embedded(broker) => broker,
            Broker::Real(_) => panic!("this needs Scene::embedded"),
        }
    }

    /// The broker goes away as a crash does, and is back.
    pub async fn interrupt_broker(&self) {
        match &self.broker {
            Broker::Embedded(broker) => {
                broker.cluster().broker_down(1).unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
                broker.cluster().broker_up(1).unwrap();
            }
            Broker::Real(broker) => {
                broker.kill().await;
                broker.come_back().await;
            }
        }
    }

    /// A consumer of the script in a transaction, one for each note: the script remembers what it has handled even if
    /// another note then undoes the batch.
    pub fn transactional(&self) -> ConsumerBuilder {
        self.batched().batch(1)
    }

    /// The same in batches, for scripts in which nothing fails.
    pub fn batched(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(GROUP).transactional(&self.database, Transactional(self.script.clone()))
    }

    /// A consumer of the script without a database.
    pub fn plain(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(GROUP).plain(Plain(self.script.clone()))
    }

    pub fn start(&self, builder: ConsumerBuilder) -> Consumer {
        self.start_counting(builder, self.metrics.clone())
    }

    /// A consumer that counts elsewhere, as one in another process does.
    pub fn start_apart(&self, builder: ConsumerBuilder) -> Consumer {
        self.start_counting(builder, ConsumerMetrics::default())
    }

    /// The same as a static member of the group.
    pub fn start_static(&self, builder: ConsumerBuilder, instance: &str, metrics: ConsumerMetrics) -> Consumer {
        let kafka = self.kafka.clone().set("group.instance.id", instance);
        self.start_on(kafka, builder, metrics)
    }

    /// What `metric` reads.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.metrics.clone()
    }

    fn start_counting(&self, builder: ConsumerBuilder, metrics: ConsumerMetrics) -> Consumer {
        self.start_on(self.kafka.clone(), builder, metrics)
    }

    fn start_on(&self, kafka: KafkaConfig, builder: ConsumerBuilder, metrics: ConsumerMetrics) -> Consumer {
        let context = ConsumerContext { kafka, producer: self.producer.clone(), clock: Clock::system(), metrics };
        builder.start(context).unwrap()
    }

    pub async fn publish(&self, key: &str, text: &str) -> Envelope {
        let note = Note::new(key, text);
        let envelope = Envelope::new(&note, "test", Clock::system().now());
        self.publish_with(&note, &envelope, &[]).await;
        envelope
    }

    pub async fn publish_with(&self, note: &Note, envelope: &Envelope, more: &[(&str, &str)]) {
        let mut headers = headers_of(envelope);
        headers.extend(more.iter().map(|(name, value)| ((*name).to_owned().into(), Some(value.as_bytes().to_vec()))));
        self.publish_record(&note.key, Some(serde_json::to_vec(note).unwrap()), headers).await;
    }

    pub async fn publish_to(&self, partition: usize, key: &str, text: &str) {
        let note = Note::new(key, text);
        let envelope = Envelope::new(&note, "test", Clock::system().now());
        let record = OutgoingRecord {
            topic: TOPIC.name.to_owned(),
            partition: Some(partition as i32),
            key: Some(key.as_bytes().to_vec()),
            value: Some(serde_json::to_vec(&note).unwrap()),
            headers: headers_of(&envelope),
        };
        self.producer.send(record).await.unwrap();
    }

    pub async fn publish_record(&self, key: &str, value: Option<Vec<u8>>, headers: Vec<(HeaderName, Option<Vec<u8>>)>) {
        self.publish_keyed(Some(key), value, headers).await;
    }

    pub async fn publish_keyed(
        &self,
        key: Option<&str>,
        value: Option<Vec<u8>>,
        headers: Vec<(HeaderName, Option<Vec<u8>>)>,
    ) {
        let (topic, key) = (TOPIC.name.to_owned(), key.map(|key| key.as_bytes().to_vec()));
        self.producer.send(OutgoingRecord { topic, partition: None, key, value, headers }).await.unwrap();
    }

    pub async fn dead_letters(&self, count: usize) -> Vec<Record> {
        records::read_until(&self.kafka, DEAD_LETTERS, PATIENCE, move |records| records.len() >= count).await
    }

    /// The sum of the group's committed offsets.
    pub fn committed(&self) -> i64 {
        self.try_committed().unwrap()
    }

    pub fn try_committed(&self) -> KafkaResult<i64> {
        let mut config = self.kafka.client().unwrap();
        config.set("group.id", GROUP);
        let client: BaseConsumer = config.create()?;
        let metadata = client.fetch_metadata(Some(TOPIC.name), PATIENCE)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(TOPIC.name, 0, metadata.topics()[0].partitions().len() as i32 - 1);
        let committed = client.committed_offsets(list, PATIENCE)?;
        Ok(committed.elements().iter().map(|element| element.offset().to_raw().unwrap().max(0)).sum())
    }

    pub async fn wait_for_commit(&self, offset: i64) {
        // A broker that has just started may have no coordinator yet.
        eventually(PATIENCE, "commit of everything", async || match self.try_committed() {
            Ok(committed) if committed == offset => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// The value of a metric, given as it is printed: `consumer_dead_letters_total`, whatever its labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.series(name).iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The lines of a metric, one for each set of labels.
    pub fn series(&self, name: &str) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        writeln!(text).unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.map(str::to_owned).collect()
    }
}

pub fn headers_of(envelope: &Envelope) -> Vec<(HeaderName, Option<Vec<u8>>)> {
    let headers = envelope.to_headers().into_iter();
    headers.map(|(name, value)| (name.into(), Some(value.into_bytes()))).collect()
}
