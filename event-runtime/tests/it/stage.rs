//! What a test of storage and publishing plays on: a database of its own and a broker, embedded or real.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use event_runtime::{
    Clock, Database, Migration, Outbox, Record, Tx,
    config::KafkaConfig,
    outbox::{OnPublished, Published, Relay, depth},
    producer::Producer,
    topics::{self, TopicSpec},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shared_events::{CorrelationId, Event, EventId, Topic};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, any::install_default_drivers};
use test_support::{MockKafka, TempDatabase, eventually, records};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, subscriber::NoSubscriber};

/// Long enough for a busy machine; a test that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const TOPIC: Topic = Topic { name: "storage-tests", partitions: 4, retention: Duration::from_secs(24 * 60 * 60) };

/// Waits until nothing is left to publish.
pub async fn becomes_empty(database: &Database) {
    eventually(PATIENCE, "empty outbox", async || match depth(database, Timestamp::now()).await.unwrap().rows {
        0 => Ok(()),
        rows => Err(rows),
    })
    .await;
}

/// The log of this thread. There are two more dispatchers, so that what another thread does not want to hear is not left
/// unsaid here (see `of_this_thread` in `telemetry.rs`).
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn dispatch(&self) -> [Dispatch; 3] {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        [Dispatch::new(lines), Dispatch::new(NoSubscriber::new()), Dispatch::new(NoSubscriber::new())]
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An event that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    pub key: String,
    pub number: u32,
    pub text: String,
}

impl Noted {
    pub fn new(key: &str, number: u32) -> Noted {
        Noted { key: key.to_owned(), number, text: String::new() }
    }
}

impl Event for Noted {
    const TYPE: &'static str = "test.noted";
    const TOPIC: Topic = TOPIC;

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// A database that goes when this is dropped.
pub struct TestDatabase {
    url: String,
    sqlite: Option<TempDatabase>,
}

impl TestDatabase {
    /// An empty one.
    pub async fn empty() -> TestDatabase {
        let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
            let sqlite = TempDatabase::new();
            return TestDatabase { url: sqlite.url(), sqlite: Some(sqlite) };
        };
        let name = format!("test_{}", EventId::new().0.simple());
        admin(&server, &format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').unwrap();
        TestDatabase { url: format!("{base}/{name}"), sqlite: None }
    }

    /// One with the runtime's tables.
    pub async fn migrated() -> TestDatabase {
        let database = TestDatabase::empty().await;
        database.connect().migrate(&[]).await.unwrap();
        database
    }

    /// One with the aggregates that [`increment`] changes.
    pub async fn with_aggregates(keys: &[impl AsRef<str>]) -> TestDatabase {
        let test = TestDatabase::empty().await;
        let database = test.connect();
        database.migrate(&[AGGREGATES]).await.unwrap();
        let mut tx = database.begin().await.unwrap();
        for key in keys {
            let insert = sqlx::query("INSERT INTO aggregate VALUES ($1, 0)").bind(key.as_ref());
            insert.execute(tx.conn()).await.unwrap();
        }
        tx.commit().await.unwrap();
        test
    }

    /// A pool of its own, as another process would have it.
    pub fn connect(&self) -> Database {
        Database::connect_lazy(&self.url).unwrap()
    }

    pub fn is_sqlite(&self) -> bool {
        self.sqlite.is_some()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.is_sqlite() {
            return;
        }
        let (server, name) = self.url.rsplit_once('/').unwrap();
        let (server, sql) = (format!("{server}/postgres"), format!("DROP DATABASE {name} WITH (FORCE)"));
        let drop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(admin(&server, &sql));
        });
        drop.join().unwrap();
    }
}

async fn admin(server: &str, sql: &str) {
    install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}

/// A broker that has [`TOPIC`].
pub enum TestKafka {
    Embedded(MockKafka),
    Real(KafkaConfig),
}

impl TestKafka {
    pub async fn start() -> TestKafka {
        match std::env::var("TEST_KAFKA_BROKERS") {
            Ok(brokers) => {
                let kafka = KafkaConfig { brokers, settings: Vec::new() };
                topics::ensure(&kafka, &[TopicSpec::from(TOPIC)]).await.unwrap();
                TestKafka::Real(kafka)
            }
            Err(_) => TestKafka::Embedded(TestKafka::embedded()),
        }
    }

    /// Always the embedded one: for faults that only it can play.
    pub fn embedded() -> MockKafka {
        let kafka = MockKafka::empty(1);
        kafka.create(TOPIC.name, TOPIC.partitions);
        kafka
    }

    pub fn config(&self) -> KafkaConfig {
        match self {
            TestKafka::Embedded(kafka) => kafka.config(),
            TestKafka::Real(kafka) => kafka.clone(),
        }
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Told(Mutex<Vec<Published>>);

impl Told {
    pub fn events(&self) -> Vec<Published> {
        self.0.lock().unwrap().clone()
    }
}

impl OnPublished for Told {
    fn published<'a>(&'a self, _: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        self.0.lock().unwrap().extend_from_slice(rows);
        async { Ok(()) }.boxed()
    }
}

/// A clock that runs with the machine's, set forward by what the test says.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn set_forward(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let ahead = Arc::clone(&self.0);
        Clock::from_fn(move || Timestamp::now() + SignedDuration::from_micros(ahead.load(Ordering::SeqCst)))
    }
}

/// A relay that runs until it is stopped or dropped; dropping it is the death of its process.
pub struct RunningRelay {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl RunningRelay {
    pub fn start(relay: Relay) -> RunningRelay {
        let shutdown = CancellationToken::new();
        RunningRelay { task: tokio::spawn(relay.run(shutdown.clone())), shutdown }
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn relay(database: &Database, kafka: &KafkaConfig) -> Relay {
    relay_with(database, kafka, &TestClock::default(), None)
}

pub fn relay_with(database: &Database, kafka: &KafkaConfig, clock: &TestClock, told: Option<&Arc<Told>>) -> Relay {
    let producer = Producer::new(kafka).unwrap();
    let told = told.map(|told| Arc::clone(told) as Arc<dyn OnPublished>);
    Relay::new(database.clone(), producer, "test", told, clock.clock())
}

/// Publishes `events` in one transaction and returns their ids.
pub async fn publish(database: &Database, events: &[Noted]) -> Vec<EventId> {
    let tx = database.begin().await.unwrap();
    let mut outbox = outbox();
    let ids = events.iter().map(|event| outbox.publish(event).unwrap()).collect();
    database.commit(tx, outbox).await.unwrap();
    ids
}

const AGGREGATES: Migration = Migration {
    version: 1,
    name: "aggregates",
    sql: "CREATE TABLE aggregate (id TEXT PRIMARY KEY, version BIGINT NOT NULL);",
};

/// What a service does: lock the aggregate's row, change it, say so.
pub async fn increment(database: &Database, key: &str) -> EventId {
    let mut tx = database.begin().await.unwrap();
    let version: i64 = sqlx::query_scalar("UPDATE aggregate SET version = version + 1 WHERE id = $1 RETURNING version")
        .bind(key)
        .fetch_one(tx.conn())
        .await
        .unwrap();
    let mut outbox = outbox();
    let id = outbox.publish(&Noted::new(key, u32::try_from(version).unwrap())).unwrap();
    database.commit(tx, outbox).await.unwrap();
    id
}

pub fn outbox() -> Outbox {
    Outbox::root("test", CorrelationId::new(), Timestamp::now())
}

/// Reads until all of `ids` were seen, and returns every record with one of them, in the order of its partition.
pub async fn read(kafka: &KafkaConfig, ids: &[EventId]) -> Vec<Record> {
    let wanted: HashSet<String> = ids.iter().map(EventId::to_string).collect();
    // On a server the topic is every test's: each record is looked at once, however many there are.
    let missing = Mutex::new((0, wanted.clone()));
    let mut records = records::read_until(kafka, TOPIC.name, PATIENCE, move |records| {
        let (looked_at, missing) = &mut *missing.lock().unwrap();
        for record in &records[*looked_at..] {
            missing.remove(id(record));
        }
        *looked_at = records.len();
        missing.is_empty()
    })
    .await;
    records.retain(|record| wanted.contains(id(record)));
    records
}

fn id(record: &Record) -> &str {
    record.header("ce_id").and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
}

/// The numbers of each key in the order in which they were published first.
pub fn first_numbers(records: &[Record]) -> HashMap<String, Vec<u32>> {
    let mut numbers: HashMap<String, Vec<u32>> = HashMap::new();
    for record in records {
        let (_, event) = records::decode::<Noted>(record);
        let seen = numbers.entry(event.key).or_default();
        if !seen.contains(&event.number) {
            seen.push(event.number);
        }
    }
    numbers
}
