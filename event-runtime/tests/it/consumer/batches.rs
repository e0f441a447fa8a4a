//! Records that share a transaction, handled one by one or together. On PostgreSQL where TEST_DATABASE_URL is set.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use event_runtime::{
    BatchHandler, ConsumerBuilder, Database, Delivery, HandlerError, Outbox, RetryPolicy, TransactionalHandler, Tx,
};
use shared_events::Envelope;
use sqlx::Row as _;
use test_support::eventually;
use tokio::sync::watch;

use super::scene::{GROUP, Note, PATIENCE, Scene, Script};
use crate::stage::TestDatabase;

/// The script, with a row and an event for every note. A note `wait` waits until the gate opens.
#[derive(Clone)]
struct Keep {
    script: Script,
    gate: watch::Receiver<bool>,
}

impl TransactionalHandler for Keep {
    type Event = Note;

    fn retry(&self) -> RetryPolicy {
        super::scene::RETRY
    }

    async fn handle(&self, tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        let note = &delivery.event;
        sqlx::query("INSERT INTO kept (record_key, record_offset, attempt) VALUES ($1, $2, $3)")
            .bind(note.key.clone())
            .bind(delivery.origin.offset)
            .bind(i64::from(delivery.attempt))
            .execute(tx.conn())
            .await?;
        outbox.publish(note)?;
        if note.text == "wait" {
            self.gate.clone().wait_for(|open| *open).await.map_err(HandlerError::retry)?;
        }
        // After the row and the event: what fails must leave neither.
        self.script.play(delivery).await
    }
}

/// The same for all that are ready, and remembers the keys of each call.
struct KeepTogether(Keep, Calls);

type Calls = Arc<Mutex<Vec<Vec<String>>>>;

impl BatchHandler for KeepTogether {
    type Event = Note;

    fn retry(&self, _event_type: &str) -> RetryPolicy {
        super::scene::RETRY
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        deliveries: &[Delivery<Note>],
        outboxes: &mut [Outbox],
    ) -> Result<(), HandlerError> {
        let keys = deliveries.iter().map(|delivery| delivery.event.key.clone()).collect();
        self.1.lock().unwrap().push(keys);
        for (delivery, outbox) in deliveries.iter().zip(outboxes) {
            self.0.handle(tx, outbox, delivery).await?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    OneByOne,
    Together,
}

struct Backlog {
    scene: Scene,
    database: Database,
    gate: watch::Sender<bool>,
    keep: Keep,
    /// The keys of each call of a handler that takes several.
    calls: Calls,
    consumer: event_runtime::Consumer,
    _dropped_last: TestDatabase,
}

impl Backlog {
    /// A consumer whose first record waits, so that what is published now is ready all at once.
    async fn new(how: How) -> Backlog {
        let (scene, test) = (Scene::new().await, TestDatabase::migrated().await);
        let database = test.connect();
        let mut tx = database.begin().await.unwrap();
        sqlx::query("CREATE TABLE kept (record_key TEXT, record_offset BIGINT, attempt BIGINT)")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let (gate, closed) = watch::channel(false);
        let (keep, calls) = (Keep { script: scene.script.clone(), gate: closed }, Calls::default());
        let builder = match how {
            How::OneByOne => ConsumerBuilder::new(GROUP).transactional(&database, keep.clone()),
            How::Together => ConsumerBuilder::new(GROUP).batched(&database, KeepTogether(keep.clone(), calls.clone())),
        };
        // One transaction at a time on PostgreSQL as well, so that there are batches.
        let consumer = scene.start(builder.concurrency(1));
        scene.publish("first", "wait").await;
        Backlog { scene, database, gate, keep, calls, consumer, _dropped_last: test }
    }

    /// Lets the first record go once so many of a key are in hand, and waits until everything before this offset is done.
    async fn work_off(&self, (key, count): (&str, usize), until: i64) {
        eventually(PATIENCE, "the backlog", async || match self.consumer.inspect(key).await.len() {
            all if all == count => Ok(()),
            some => Err(some),
        })
        .await;
        self.gate.send_replace(true);
        self.scene.wait_for_commit(until).await;
    }

    /// Offset and attempt of what is kept of a key, in the order of its offsets; and how often it is kept in all.
    async fn kept(&self, key: &str) -> Vec<(i64, i64)> {
        let rows = sqlx::query("SELECT record_offset, attempt FROM kept WHERE record_key = $1 ORDER BY record_offset")
            .bind(key.to_owned())
            .fetch_all(self.database.pool())
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// The causes of what was published with a key, in the order in which it will be.
    async fn causes(&self, key: &str) -> Vec<String> {
        let rows = sqlx::query("SELECT headers FROM outbox WHERE record_key = $1 ORDER BY seq")
            .bind(key.to_owned())
            .fetch_all(self.database.pool())
            .await
            .unwrap();
        let cause = |headers: String| {
            let headers: Vec<(String, String)> = serde_json::from_str(&headers).unwrap();
            headers.into_iter().find(|(name, _)| name == shared_events::header::CAUSATION_ID).unwrap().1
        };
        rows.iter().map(|row| cause(row.get(0))).collect()
    }
}

fn ids(envelopes: &[Envelope]) -> Vec<String> {
    envelopes.iter().map(|envelope| envelope.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_a_batch_fails_alone_and_everything_keeps_its_order() {
    assert_that_failures_are_told_apart(How::OneByOne).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_among_records_that_are_handled_together_fails_alone_as_well() {
    assert_that_failures_are_told_apart(How::Together).await;
}

async fn assert_that_failures_are_told_apart(how: How) {
    let backlog = Backlog::new(how).await;
    let scene = &backlog.scene;
    let texts = |key: &str| match key {
        "rejected" => ["one", "reject", "three"],
        "retried" => ["one", "fail 2 times", "three"],
        "panics" => ["panic", "two", "three"],
        _ => ["one", "two", "three"],
    };
    // The first two to start are of one key, and the first of them fails.
    let keys = ["panics", "a", "b", "rejected", "c", "retried", "x", "y"];
    let mut published: Vec<Vec<Envelope>> = vec![Vec::new(); keys.len()];
    for round in 0..3 {
        for (key, envelopes) in keys.iter().zip(&mut published) {
            envelopes.push(scene.publish(key, texts(key)[round]).await);
        }
    }
    backlog.work_off(("y", 3), 25).await;

    for (place, (key, envelopes)) in keys.iter().zip(&published).enumerate() {
        let offset = |round: i64| 1 + 8 * round + place as i64;
        let attempts = match *key {
            "rejected" => vec![(offset(0), 1), (offset(2), 1)],
            "retried" => vec![(offset(0), 1), (offset(1), 3), (offset(2), 1)],
            "panics" => vec![(offset(0), 2), (offset(1), 1), (offset(2), 1)],
            _ => vec![(offset(0), 1), (offset(1), 1), (offset(2), 1)],
        };
        assert_eq!(backlog.kept(key).await, attempts, "{key}");
        let mut causes = ids(envelopes);
        if *key == "rejected" {
            causes.remove(1);
        }
        assert_eq!(backlog.causes(key).await, causes, "{key}: in the order of its records, and none of what failed");
    }
    let letters = scene.dead_letters(1).await;
    assert_eq!(letters[0].header("dlt-attempts"), Some(b"1".as_slice()));
    let count = |name: &str| scene.metric(name) as i64;
    assert!(count("consumer_batches_rolled_back_total") > 0, "nothing that fails was in a batch");
    assert_eq!(count("consumer_records_handled_total"), 24, "each once, the one that waited too");
    assert_eq!(count("consumer_handler_seconds_count"), 24 + 4, "and every attempt that failed alone");
    assert_eq!(count("consumer_records_retried_total"), 3);
    assert_eq!(count("consumer_records_rejected_total"), 1);
    assert_eq!(count("consumer_dead_letters_total"), 1);
    assert_eq!(count("consumer_records_duplicate_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_twice_in_a_batch_or_handled_before_it_is_a_duplicate() {
    let backlog = Backlog::new(How::OneByOne).await;
    let scene = &backlog.scene;
    let note = Note::new("a", "again");
    let envelope = Envelope::new(&note, "test", jiff::Timestamp::now());
    for _ in 0..20 {
        scene.publish_with(&note, &envelope, &[]).await;
    }
    backlog.work_off(("a", 20), 21).await;
    assert_eq!(backlog.kept("a").await.len(), 1);
    assert_eq!(scene.metric("consumer_records_duplicate_total"), 19.0);
    assert_eq!(scene.metric("consumer_records_handled_total"), 2.0);
    assert!(scene.metric("consumer_batch_records_sum") >= 2.0, "they had a transaction each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_cut_off_is_handled_by_the_next_consumer() {
    let backlog = Backlog::new(How::OneByOne).await;
    let scene = &backlog.scene;
    for number in 0..20 {
        scene.publish(&format!("key-{number}"), if number == 15 { "hang" } else { "ok" }).await;
    }
    backlog.gate.send_replace(true);
    eventually(PATIENCE, "the one that hangs", async || {
        match scene.script.running.load(std::sync::atomic::Ordering::SeqCst) {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let hangs = std::time::Duration::from_millis(100);
    backlog.consumer.shutdown(hangs).await.unwrap();

    let timeout = std::time::Duration::from_secs(1);
    let next =
        ConsumerBuilder::new(GROUP).transactional(&backlog.database, backlog.keep.clone()).handler_timeout(timeout);
    let _next = scene.start(next);
    scene.wait_for_commit(21).await;
    for number in 0..20 {
        let kept = backlog.kept(&format!("key-{number}")).await;
        let attempt = if number == 15 { 2 } else { 1 };
        assert_eq!(kept, [(number + 1, attempt)], "key-{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handled_together_is_sorted_and_names_no_key_twice_and_each_key_keeps_its_order() {
    let backlog = Backlog::new(How::Together).await;
    let scene = &backlog.scene;
    let keys: Vec<String> = (0..20).rev().map(|number| format!("key-{number:02}")).collect();
    let mut published: Vec<Vec<Envelope>> = vec![Vec::new(); keys.len()];
    for round in 0..3 {
        for (key, envelopes) in keys.iter().zip(&mut published) {
            envelopes.push(scene.publish(key, &format!("{round}")).await);
        }
    }
    backlog.work_off(("key-00", 3), 61).await;

    let calls = backlog.calls.lock().unwrap().clone();
    for call in &calls {
        assert!(call.is_sorted_by(|one, next| one < next), "{call:?} of {calls:?}");
    }
    assert!(calls.iter().any(|call| call.len() > 3), "few were together: {calls:?}");
    for (key, envelopes) in keys.iter().zip(&published) {
        assert_eq!(backlog.causes(key).await, ids(envelopes), "{key}: each event by its own cause, in their order");
        assert_eq!(scene.script.of_key(key), ["0", "1", "2"]);
    }
    assert_eq!(scene.metric("consumer_records_handled_total"), 61.0);
    assert_eq!(scene.metric("consumer_handler_seconds_count"), 61.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_batch_have_one_deadline() {
    let backlog = Backlog::new(How::OneByOne).await;
    for _ in 0..20 {
        backlog.scene.publish("a", "ok").await;
    }
    backlog.work_off(("a", 20), 21).await;
    let deadlines = backlog.scene.script.deadlines.lock().unwrap().clone();
    let each: HashSet<_> = deadlines.iter().map(|(deadline, _)| *deadline).collect();
    let (batches, batched) =
        ["count", "sum"].map(|of| backlog.scene.metric(&format!("consumer_batch_records_{of}"))).into();
    assert_eq!(
        (deadlines.len(), each.len() as f64),
        (21, 21.0 - batched + batches),
        "one a transaction: {deadlines:?}"
    );
    assert!(batches > 0.0);
}
