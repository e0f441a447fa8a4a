//! What goes wrong between the outbox and the topic costs time, not events; and never more than it must.

use std::{sync::Arc, time::Duration};

use event_runtime::{
    Database,
    config::KafkaConfig,
    outbox::{self, Metrics, depth},
    telemetry::metrics::Metrics as Families,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shared_events::{Event, Topic};
use sqlx::{AssertSqlSafe, Row as _};
use test_support::eventually;

use crate::stage::{
    Log, Noted, PATIENCE, RunningRelay, TestClock, TestDatabase, TestKafka, Told, becomes_empty, first_numbers, outbox,
    publish, read, relay, relay_with,
};

async fn rows(database: &Database) -> u64 {
    depth(database, Timestamp::now()).await.unwrap().rows
}

async fn says(log: &Log, words: &str) {
    eventually(PATIENCE, "line of the log", async || {
        let text = log.text();
        if text.contains(words) { Ok(()) } else { Err(text) }
    })
    .await;
}

fn with(mut kafka: KafkaConfig, settings: &[&str]) -> KafkaConfig {
    kafka.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
    kafka
}

#[tokio::test]
async fn events_said_while_the_broker_is_away_are_published_in_order_when_it_is_back() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    let log = Log::default();
    let dispatch = log.dispatch();
    // One thread, so that the default of this thread is the relay's.
    let _default = tracing::dispatcher::set_default(&dispatch[0]);
    let database = test.connect();
    // So short that the producer gives up many times meanwhile.
    let config = with(kafka.config(), &["message.timeout.ms=200"]);
    let running = RunningRelay::start(relay(&database, &config));
    let mut ids = publish(&database, &[Noted::new("a", 0)]).await;
    becomes_empty(&database).await;

    kafka.cluster().broker_down(1).unwrap();
    for number in 1..20 {
        ids.extend(publish(&database, &[Noted::new("a", number), Noted::new("b", number)]).await);
    }
    // Long enough for several attempts of the first row and none of the others.
    eventually(PATIENCE, "second of outage", async || {
        let age = depth(&database, Timestamp::now()).await.unwrap().oldest_age;
        if age > Some(SignedDuration::from_secs(1)) { Ok(()) } else { Err(age) }
    })
    .await;
    says(&log, "Kafka is away; events wait in the outbox service=\"test\" reason=\"").await;
    assert_eq!(rows(&database).await, 38);
    kafka.cluster().broker_up(1).unwrap();

    let numbers = first_numbers(&read(&config, &ids).await);
    assert_eq!(numbers["a"], (0..20).collect::<Vec<u32>>());
    assert_eq!(numbers["b"], (1..20).collect::<Vec<u32>>());
    becomes_empty(&database).await;
    says(&log, "Kafka is back; the outbox goes on").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_for_kafka_is_set_aside_and_everything_else_goes_on() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let huge = Noted { text: "x".repeat(2_000_000), ..Noted::new("a", 2) };
    let ids = publish(&database, &[Noted::new("a", 1), huge, Noted::new("a", 3), Noted::new("b", 4)]).await;

    let running = RunningRelay::start(relay(&database, &kafka.config()));
    let numbers = first_numbers(&read(&kafka.config(), &[ids[0], ids[2], ids[3]]).await);
    assert_eq!((&numbers["a"][..], &numbers["b"][..]), (&[1, 3][..], &[4][..]));
    becomes_empty(&database).await;
    let poison =
        sqlx::query("SELECT event_id, reason, value FROM outbox_poison").fetch_all(database.pool()).await.unwrap();
    let [poison] = &poison[..] else { panic!("{} rows set aside", poison.len()) };
    assert_eq!(poison.get::<String, _>(0), ids[1].to_string());
    assert!(poison.get::<String, _>(1).contains("too large"), "{}", poison.get::<String, _>(1));
    assert!(poison.get::<Vec<u8>, _>(2).len() > 2_000_000, "the event itself is kept");
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().set_aside, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_read_are_set_aside_and_everything_else_goes_on() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let ids = publish(&database, &[1, 2, 3, 4].map(|number| Noted::new("a", number))).await;
    let mut tx = database.begin().await.unwrap();
    for (change, id) in [("headers = '[[\"ce_id\"'", ids[0]), ("event_id = 'two'", ids[2])] {
        let change = AssertSqlSafe(format!("UPDATE outbox SET {change} WHERE event_id = '{id}'"));
        sqlx::query(change).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();

    let families = Families::default();
    let relay = relay(&database, &kafka.config()).with_metrics(Metrics::register(&families));
    let running = RunningRelay::start(relay);
    let numbers = first_numbers(&read(&kafka.config(), &[ids[1], ids[3]]).await);
    assert_eq!(numbers["a"], [2, 4]);
    becomes_empty(&database).await;
    let poison = sqlx::query("SELECT event_id, reason, headers FROM outbox_poison ORDER BY seq")
        .fetch_all(database.pool())
        .await
        .unwrap();
    let [headers, id] = &poison[..] else { panic!("{} rows set aside", poison.len()) };
    assert_eq!(headers.get::<String, _>(0), ids[0].to_string());
    assert_eq!(headers.get::<String, _>(2), "[[\"ce_id\"", "the row is kept as it was");
    for (row, column) in [(headers, "headers"), (id, "event_id")] {
        let reason = row.get::<String, _>(1);
        assert!(reason.starts_with("the row cannot be read: ") && reason.contains(column), "{reason}");
    }
    running.stop().await;
    let shown = families.encode();
    assert!(shown.contains("outbox_set_aside_total 2"), "{shown}");
}

/// Says nothing to nobody: its topic was never created.
#[derive(Serialize, Deserialize)]
struct Unheard {
    key: String,
}

impl Event for Unheard {
    const TYPE: &'static str = "test.unheard";
    const TOPIC: Topic =
        Topic { name: "storage-tests-no-such-topic", partitions: 1, retention: Duration::from_secs(60) };

    fn key(&self) -> String {
        self.key.clone()
    }
}

#[tokio::test]
async fn an_event_whose_topic_is_missing_holds_back_its_key_only_and_is_set_aside_in_the_end() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let log = Log::default();
    let dispatch = log.dispatch();
    // One thread, so that the default of this thread is the relay's.
    let _default = tracing::dispatcher::set_default(&dispatch[0]);
    let database = test.connect();
    let config = with(kafka.config(), &["topic.metadata.propagation.max.ms=100"]);
    let tx = database.begin().await.unwrap();
    let mut outbox = outbox();
    outbox.publish(&Unheard { key: "a".to_owned() }).unwrap();
    let behind = outbox.publish(&Noted::new("a", 1)).unwrap();
    let other = outbox.publish(&Noted::new("b", 2)).unwrap();
    database.commit(tx, outbox).await.unwrap();

    let patient = RunningRelay::start(relay(&database, &config));
    read(&config, &[other]).await;
    says(&log, "the event waits for its topic").await;
    eventually(PATIENCE, "removal of the other key's row", async || match rows(&database).await {
        2 => Ok(()),
        rows => Err(rows),
    })
    .await;
    patient.stop().await;
    assert!(!log.text().contains("Kafka is away"), "{}", log.text());

    let resolute = relay(&database, &config).with_unknown_topic_patience(Duration::from_millis(1));
    let resolute = RunningRelay::start(resolute);
    read(&config, &[behind]).await;
    becomes_empty(&database).await;
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().set_aside, 1);
    resolute.stop().await;
}

/// SQLite takes any bytes for text, and the driver then fails the statement for all rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_text_stops_no_other_row() {
    let test = TestDatabase::migrated().await;
    if !test.is_sqlite() {
        return;
    }
    let (database, kafka) = (test.connect(), TestKafka::start().await);
    let ids = publish(&database, &["a", "b", "c", "d"].map(|key| Noted::new(key, 1))).await;
    let mut tx = database.begin().await.unwrap();
    // One of them has no bucket yet.
    for (change, id) in
        [("record_key = CAST(x'ff' AS TEXT)", ids[1]), ("record_key = CAST(x'fe' AS TEXT), bucket = NULL", ids[2])]
    {
        let change = AssertSqlSafe(format!("UPDATE outbox SET {change} WHERE event_id = '{id}'"));
        sqlx::query(change).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();

    let running = RunningRelay::start(relay(&database, &kafka.config()));
    read(&kafka.config(), &[ids[0], ids[3]]).await;
    becomes_empty(&database).await;
    running.stop().await;
    let aside = outbox::set_aside(&database).await.unwrap();
    assert_eq!(
        aside.iter().map(|row| row.event_id.clone()).collect::<Vec<_>>(),
        [ids[1], ids[2]].map(|id| id.to_string())
    );
    let bytes = serde_json::to_vec(&Noted::new("b", 1)).unwrap().len();
    for row in aside {
        assert_eq!(row.bytes, bytes as u64);
        assert!(row.unreadable == Some("record_key") && row.reason.starts_with("the row cannot be read"), "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_set_aside_is_published_once_its_topic_is_there_and_it_is_put_back() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    let database = test.connect();
    let config = with(kafka.config(), &["topic.metadata.propagation.max.ms=100"]);
    let tx = database.begin().await.unwrap();
    let mut outbox = outbox();
    let id = outbox.publish(&Unheard { key: "a".to_owned() }).unwrap();
    database.commit(tx, outbox).await.unwrap();
    let impatient = relay(&database, &config).with_unknown_topic_patience(Duration::from_millis(1));
    let running = RunningRelay::start(impatient);
    becomes_empty(&database).await;
    running.stop().await;

    kafka.create(Unheard::TOPIC.name, 1);
    let aside = outbox::set_aside(&database).await.unwrap();
    let [row] = &aside[..] else { panic!("{aside:?}") };
    assert!(outbox::requeue(&database, row, Timestamp::now()).await.unwrap());
    assert!(!outbox::requeue(&database, row, Timestamp::now()).await.unwrap(), "put back twice");
    let told = Arc::new(Told::default());
    let running = RunningRelay::start(relay_with(&database, &config, &TestClock::default(), Some(&told)));
    becomes_empty(&database).await;
    running.stop().await;
    let published = told.events();
    assert_eq!((published.len(), published[0].event_id), (1, id));
    assert_eq!(&*published[0].origin.topic, Unheard::TOPIC.name);
}

/// The relay's process was stopped for a while, say, and another one has taken over: when it goes on, what it sent is
/// acknowledged, but it is no longer the one that may say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lost_its_lease_removes_nothing_and_tells_nobody() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    let (late, heir) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let (clock, later) = (TestClock::default(), TestClock::default());
    later.set_forward(SignedDuration::from_mins(1));
    let databases = [test.connect(), test.connect()];

    let first = RunningRelay::start(relay_with(&databases[0], &kafka.config(), &clock, Some(&late)));
    let warm_up = publish(&databases[0], &[Noted::new("a", 0)]).await;
    becomes_empty(&databases[0]).await;
    assert_eq!(late.events()[0].event_id, warm_up[0]);

    kafka.cluster().broker_round_trip_time(1, Duration::from_millis(800)).unwrap();
    let ids = publish(&databases[0], &[Noted::new("a", 1)]).await;
    // The first one has sent the row, or will before it looks at its lease again.
    let second = RunningRelay::start(relay_with(&databases[1], &kafka.config(), &later, Some(&heir)));
    becomes_empty(&databases[1]).await;
    first.stop().await;
    second.stop().await;

    assert_eq!(late.events().len(), 1, "told by the relay that lost its lease");
    assert_eq!(heir.events().iter().map(|event| event.event_id).collect::<Vec<_>>(), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_takes_over_from_one_that_died() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let dead = RunningRelay::start(relay(&test.connect(), &kafka.config()));
    let ids = publish(&database, &[Noted::new("a", 1)]).await;
    read(&kafka.config(), &ids).await;
    drop(dead);

    let ids = publish(&database, &[Noted::new("a", 2)]).await;
    let clock = TestClock::default();
    let running = RunningRelay::start(relay_with(&database, &kafka.config(), &clock, None));
    clock.set_forward(SignedDuration::from_secs(6));
    read(&kafka.config(), &ids).await;
    running.stop().await;
}

/// The place where an event stands is noted in the transaction that removes its row: if that fails, both are done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_stays_until_its_place_is_noted() {
    use event_runtime::{
        Tx,
        outbox::{OnPublished, Published, Relay},
        producer::Producer,
    };
    use futures_util::{FutureExt as _, future::BoxFuture};
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct FailsTwice(AtomicU32, Told);
    impl OnPublished for FailsTwice {
        fn published<'a>(&'a self, tx: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
            if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
                return async { Err(sqlx::Error::RowNotFound) }.boxed();
            }
            self.1.published(tx, rows)
        }
    }

    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let (database, told) = (test.connect(), Arc::new(FailsTwice::default()));
    let producer = Producer::new(&kafka.config()).unwrap();
    let relay = Relay::new(database.clone(), producer, "test", Some(told.clone()), TestClock::default().clock());
    let ids = publish(&database, &[Noted::new("a", 1)]).await;
    let running = RunningRelay::start(relay);
    becomes_empty(&database).await;
    assert_eq!(told.1.events().len(), 1);
    let records = read(&kafka.config(), &ids).await;
    assert_eq!(records.len(), 1, "it was not published again for that");
    running.stop().await;
}
