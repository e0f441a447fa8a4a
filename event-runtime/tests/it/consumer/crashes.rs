//! Records that end the process: this test binary again, told to run the one test that consumes them.

use std::{
    collections::BTreeMap,
    io::Read as _,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use event_runtime::{
    Clock, ConsumerBuilder, ConsumerContext, Database, Delivery, HandlerError, Migration, Outbox, PlainHandler,
    RetryPolicy, TransactionalHandler, Tx,
    config::KafkaConfig,
    consumer::{
        ConsumerMetrics,
        dead_letter::{DeadLetter, header},
    },
    producer::Producer,
};
use serde::{Deserialize, Serialize};
use shared_events::{Event, Topic};
use sqlx::Row as _;
use test_support::{TempDatabase, eventually};

use super::scene::{Effect, GROUP, Note, RETRY_ATTEMPTS, Scene};

/// A process may need its predecessor's session to end before it has partitions.
pub const PATIENCE: Duration = Duration::from_secs(60);
const BROKERS: &str = "CRASHES_BROKERS";
const SETTINGS: &str = "CRASHES_SETTINGS";
const DATABASE: &str = "CRASHES_DATABASE";
const RETRIES: u32 = 1;
pub const HANDLED: Migration = Migration {
    version: 1,
    name: "handled",
    sql: "CREATE TABLE handled (key TEXT NOT NULL, text TEXT NOT NULL, handled_at BIGINT NOT NULL);",
};

/// `abort` ends the process, `doom` also when its dead letter is told; `kill` does so as the system does it when there is
/// no memory; all others are written down.
struct Deadly;

impl TransactionalHandler for Deadly {
    type Event = Note;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::limited(RETRIES).backoff(Duration::from_millis(50), Duration::from_millis(100))
    }

    async fn handle(&self, tx: &mut Tx, _outbox: &mut Outbox, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        match delivery.event.text.split(' ').next() {
            Some("abort" | "doom") => {
                // In the middle of what is handled beside it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                std::process::abort();
            }
            Some("kill") => {
                let pid = std::process::id().to_string();
                Command::new("kill").args(["-KILL", &pid]).status().map_err(HandlerError::retry)?;
                std::future::pending::<()>().await;
            }
            Some("slow") => tokio::time::sleep(Duration::from_secs(1)).await,
            // Long enough that the records of several keys run side by side.
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        sqlx::query("INSERT INTO handled (key, text, handled_at) VALUES ($1, $2, $3)")
            .bind(&delivery.event.key)
            .bind(&delivery.event.text)
            .bind(jiff::Timestamp::now().as_microsecond())
            .execute(tx.conn())
            .await?;
        Ok(())
    }

    async fn exhausted(
        &self,
        _tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<Note>,
        _error: &HandlerError,
    ) -> Result<(), HandlerError> {
        if delivery.event.text == "doom" {
            std::process::abort();
        }
        Ok(())
    }
}

/// A consumer without a database: what it may end the process with is counted nowhere.
struct Neighbour;

impl PlainHandler for Neighbour {
    type Event = Note;

    async fn handle(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        if delivery.event.text == "slow" {
            // In the middle of what the other consumer does with the same record.
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::process::abort();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the tests below"]
async fn child() {
    let setting = |name| std::env::var(name).unwrap();
    let settings = setting(SETTINGS).lines().map(str::to_owned).collect();
    let kafka = KafkaConfig { brokers: setting(BROKERS), settings };
    let producer = Producer::new(&kafka).unwrap();
    let database = Database::connect_lazy(&setting(DATABASE)).unwrap();
    let builder = ConsumerBuilder::new(GROUP).transactional(&database, Deadly);
    let context = || ConsumerContext {
        kafka: kafka.clone(),
        producer: producer.clone(),
        clock: Clock::system(),
        metrics: ConsumerMetrics::default(),
    };
    let consumer = builder.start(context()).unwrap();
    let _neighbour = ConsumerBuilder::new("neighbour").plain(Neighbour).start(context()).unwrap();
    // Until the parent closes it.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    consumer.shutdown(Duration::from_secs(10)).await.unwrap();
}

pub struct Process(Child);

impl Process {
    pub fn start(scene: &Scene, database: &TempDatabase) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "consumer::crashes::child", "--ignored", "--nocapture"])
            .env(BROKERS, &scene.kafka.brokers)
            .env(SETTINGS, scene.kafka.settings.join("\n"))
            .env(DATABASE, database.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    pub async fn stop(mut self) {
        drop(self.0.stdin.take());
        let ended = eventually(PATIENCE, "end of the process", async || self.ended().ok_or("it runs")).await;
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a process as often as it dies, until everything is committed up to `offset`. How often it died.
async fn run_to_the_end(scene: &Scene, database: &TempDatabase, offset: i64) -> u32 {
    let mut deaths = 0;
    loop {
        let mut process = Process::start(scene, database);
        let died = eventually(PATIENCE, "commit of everything, or a death", async || {
            match (process.ended(), scene.try_committed()) {
                (Some(status), _) => Ok(Some(status)),
                (None, Ok(committed)) if committed == offset => Ok(None),
                (None, other) => Err(other),
            }
        })
        .await;
        match died {
            None => {
                process.stop().await;
                return deaths;
            }
            Some(status) => assert!(status.signal().is_some(), "{status}"),
        }
        deaths += 1;
        assert!(deaths < 30, "it dies for ever");
    }
}

async fn count(database: &Database, table: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(database.pool()).await.unwrap()
}

/// The texts that were handled, by key, in order.
async fn handled(database: &Database) -> BTreeMap<String, Vec<String>> {
    // Not as they lie there: PostgreSQL puts rows where those of a transaction that was rolled back had been.
    let sql = "SELECT key, text FROM handled ORDER BY handled_at";
    let rows = sqlx::query(sql).fetch_all(database.pool()).await.unwrap();
    let mut handled: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        handled.entry(row.get(0)).or_default().push(row.get(1));
    }
    handled
}

/// On the embedded broker, where a dead process's session ends soon.
async fn scene() -> Scene {
    let mut scene = Scene::embedded().await;
    // The new protocol's sessions are the broker's, and the embedded one's are of 30 seconds.
    let session = ["group.protocol=classic", "session.timeout.ms=6000", "heartbeat.interval.ms=500"];
    scene.kafka.settings.extend(session.map(str::to_owned));
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_ends_the_process_is_dead_lettered_after_its_attempts_and_all_others_are_handled() {
    let scene = scene().await;
    let test = TempDatabase::any().await;
    let database = test.migrated(&[HANDLED]).await;
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..60 {
        let (key, text) = match number {
            0 => ("key-0".to_owned(), "doom".to_owned()),
            33 => ("key-3".to_owned(), "kill".to_owned()),
            _ => (format!("key-{}", number % 10), number.to_string()),
        };
        scene.publish(&key, &text).await;
        if !matches!(number, 0 | 33) {
            expected.entry(key).or_default().push(text);
        }
    }

    let deaths = run_to_the_end(&scene, &test, 60).await;
    println!("{deaths} deaths");
    // The first one may be an accident, and of the second nobody knows the cause; after that each is an attempt of one of the
    // two, and of one its dead letter. It stands first, so that nobody gets any further before it is done.
    assert_eq!(deaths, 2 + (1 + RETRIES) + (1 + RETRIES + 1));
    assert_eq!(handled(&database).await, expected, "each once, in the order of its key");
    let letters = scene.dead_letters(3).await;
    let mut letters: Vec<_> = letters.iter().map(|letter| DeadLetter::read(letter).unwrap()).collect();
    letters.sort_by_key(|letter| (letter.original.offset, letter.attempts));
    let places: Vec<_> = letters.iter().map(|letter| (letter.original.offset, letter.attempts)).collect();
    assert_eq!(places, [(0, 1 + RETRIES), (0, 1 + RETRIES + 1), (33, 1 + RETRIES)]);
    for letter in letters {
        let why = format!("the process ended {} times", letter.attempts);
        assert!(letter.error.contains(&why), "{}", letter.error);
        assert!(letter.error.contains("replay this dead letter"), "{}", letter.error);
    }
    assert_eq!(count(&database, "consumer_assignments").await, 0, "everything was given back");
    assert_eq!(count(&database, "consumer_crashes").await, 0, "there is nothing left to remember");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_alone_is_not_blamed_for_a_record_of_another_consumer_in_its_process() {
    let scene = scene().await;
    let test = TempDatabase::any().await;
    let database = test.migrated(&[HANDLED]).await;
    scene.publish("a", "slow").await;
    for _ in 0..3 + RETRIES {
        let mut process = Process::start(&scene, &test);
        let died = eventually(PATIENCE, "death", async || process.ended().ok_or("it runs")).await;
        assert!(died.signal().is_some(), "{died}");
    }
    assert_eq!(count(&database, "consumer_crashes").await, 0);
    let dead = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM inbox WHERE dead_replay IS NOT NULL");
    assert_eq!(dead.fetch_one(database.pool()).await.unwrap(), 0, "it was given up");
}

/// Its dead letter was deadly, too. The process may end once more before the offset is committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_handler_is_not_told_of_its_dead_letter_is_not_handled_again() {
    let scene = Scene::new().await;
    let effect = ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone()));
    for (round, builder) in [scene.transactional(), effect].into_iter().enumerate() {
        let offset = 3 * round as i64;
        remember_crashes(&scene.database, offset, 1 + RETRY_ATTEMPTS).await;
        let consumer = scene.start(builder);
        let envelope = scene.publish("a", "doom").await;
        scene.wait_for_commit(offset + 1).await;
        assert_eq!(count(&scene.database, "consumer_crashes").await, 0);
        // As after a restart.
        scene.publish_with(&Note::new("a", "doom"), &envelope, &[]).await;
        let replay = [(header::TARGET_GROUP, GROUP), (header::REPLAY_COUNT, "1")];
        scene.publish_with(&Note::new("a", "mended"), &envelope, &replay).await;
        scene.wait_for_commit(offset + 3).await;
        consumer.shutdown(PATIENCE).await.unwrap();
    }
    assert_eq!(scene.script.of_key("a"), ["mended", "mended"]);
    assert_eq!(scene.script.effects.load(Ordering::SeqCst), 1);
    assert!(scene.script.exhausted().is_empty(), "the handler was told");
    assert_eq!(scene.metric("consumer_dead_letters_total"), 2.0);
    assert_eq!(scene.metric("consumer_records_duplicate_total"), 2.0);
}

/// Not even of a plain handler, which has no inbox, where the consumer has a database for others. What is delivered again
/// runs alone, as it does when a record has ended the process once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_ended_the_process_is_not_handled_again_by_a_plain_handler() {
    let scene = Scene::new().await;
    for (offset, crashes) in [(0, RETRY_ATTEMPTS), (1, 0), (2, 0)] {
        remember_crashes(&scene.database, offset, crashes).await;
    }
    let consumer = scene.start(scene.plain().transactional(&scene.database, Beside));
    let envelope = scene.publish("a", "doom").await;
    scene.publish_with(&Note::new("a", "doom"), &envelope, &[]).await;
    let replay = [(header::TARGET_GROUP, GROUP), (header::REPLAY_COUNT, "1")];
    scene.publish_with(&Note::new("a", "mended"), &envelope, &replay).await;
    scene.wait_for_commit(3).await;
    consumer.shutdown(PATIENCE).await.unwrap();
    assert_eq!(scene.script.of_key("a"), ["mended"]);
    assert_eq!(scene.metric("consumer_dead_letters_total"), 1.0);
    assert_eq!(scene.metric("consumer_records_duplicate_total"), 1.0);
    assert_eq!(count(&scene.database, "consumer_crashes").await, 0);
}

/// An event that nobody says.
#[derive(Serialize, Deserialize)]
struct Unsaid;

impl Event for Unsaid {
    const TYPE: &'static str = "note.unsaid";
    const TOPIC: Topic = Note::TOPIC;

    fn key(&self) -> String {
        String::new()
    }
}

struct Beside;

impl TransactionalHandler for Beside {
    type Event = Unsaid;

    async fn handle(&self, _tx: &mut Tx, _outbox: &mut Outbox, _: &Delivery<Unsaid>) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn remember_crashes(database: &Database, offset: i64, crashes: u32) {
    let mut tx = database.begin().await.unwrap();
    let remember = "INSERT INTO consumer_crashes (consumer_group, topic, partition, record_offset, crashes, crashed_at) \
                    VALUES ($1, 'notes', 0, $2, $3, 0)";
    let remember = sqlx::query(remember).bind(GROUP).bind(offset).bind(i64::from(crashes));
    remember.execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_are_forgotten_once_a_partition_is_handled_further_than_ever() {
    let scene = Scene::new().await;
    let mut tx = scene.database.begin().await.unwrap();
    let left = "INSERT INTO consumer_assignments (consumer_group, topic, partition, owner, assigned_at, deaths, reached) \
                VALUES ($1, 'notes', 0, 'one that died', 0, 1, 2)";
    sqlx::query(left).bind(GROUP).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    let _consumer = scene.start(scene.transactional());
    for number in 0..3 {
        scene.publish("a", &number.to_string()).await;
        scene.wait_for_commit(number + 1).await;
    }
    // The second death in a row: it would be written at the first record if nobody knew what was reached before.
    eventually(PATIENCE, "the end of the count", async || {
        let row = sqlx::query("SELECT deaths, reached FROM consumer_assignments");
        let row = row.fetch_one(scene.database.pool()).await.unwrap();
        match (row.get::<i64, _>(0), row.get::<i64, _>(1)) {
            (0, 3) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

async fn rename(database: &Database, from: &str, to: &str) {
    let mut tx = database.begin().await.unwrap();
    let rename = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
    sqlx::raw_sql(rename).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn assigned_partitions_wait_until_the_database_says_how_they_were_left() {
    let scene = Scene::new().await;
    rename(&scene.database, "consumer_assignments", "out_of_reach").await;
    scene.publish("a", "patience").await;
    let consumer = scene.start(scene.transactional());
    let held = || (scene.metric("consumer_held_partitions"), scene.metric("consumer_records_consumed_total"));
    eventually(PATIENCE, "a record that waits", async || match held() {
        (1.0, 1.0) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(scene.script.begun.load(Ordering::SeqCst), 0, "nothing is handled before its past is known");
    rename(&scene.database, "out_of_reach", "consumer_assignments").await;
    scene.script.wait_for(1).await;
    eventually(PATIENCE, "end of the wait", async || match held() {
        (0.0, _) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(count(&scene.database, "consumer_assignments").await, 1);
    consumer.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(count(&scene.database, "consumer_assignments").await, 0);
}
