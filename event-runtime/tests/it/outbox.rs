//! What commits is published: with its envelope, in order, when it is due.

use std::sync::Arc;

use event_runtime::outbox::depth;
use jiff::{SignedDuration, Timestamp};
use test_support::{eventually, records};

use crate::stage::{
    Noted, PATIENCE, RunningRelay, TestClock, TestDatabase, TestKafka, Told, first_numbers, increment, outbox, publish,
    read, relay, relay_with,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_event_is_published_with_its_envelope_and_its_place_is_told() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let (database, told) = (test.connect(), Arc::new(Told::default()));
    let running = RunningRelay::start(relay_with(&database, &kafka.config(), &TestClock::default(), Some(&told)));

    let event = Noted { text: "grüße".to_owned(), ..Noted::new("a", 1) };
    let tx = database.begin().await.unwrap();
    let mut outbox = outbox();
    let id = outbox.publish(&event).unwrap();
    let envelope = outbox.rows()[0].envelope.clone();
    database.commit(tx, outbox).await.unwrap();

    let read = read(&kafka.config(), &[id]).await;
    assert_eq!(records::decode::<Noted>(&read[0]), (envelope, event));
    assert_eq!(read[0].key.as_deref(), Some(&b"a"[..]));
    let published = eventually(PATIENCE, "note of the place", async || told.events().pop().ok_or(())).await;
    assert_eq!((published.event_id, published.origin), (id, read[0].origin.clone()));
    running.stop().await;
    let depth = depth(&database, Timestamp::now()).await.unwrap();
    assert_eq!((depth.rows, depth.oldest_age), (0, None), "what is published leaves the outbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_is_never_published() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let mut tx = database.begin().await.unwrap();
    let mut refused = outbox();
    refused.publish(&Noted::new("a", 1)).unwrap();
    // As a handler's transaction would be: rows written, then something fails.
    sqlx::query("INSERT INTO no_such_table VALUES (1)").execute(tx.conn()).await.unwrap_err();
    tx.rollback().await.unwrap();
    drop(refused);
    let later = publish(&database, &[Noted::new("a", 2)]).await;

    let running = RunningRelay::start(relay(&database, &kafka.config()));
    let read = read(&kafka.config(), &later).await;
    assert_eq!(first_numbers(&read)["a"], [2]);
    running.stop().await;
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_stores_neither_business_rows_nor_events() {
    let test = TestDatabase::with_aggregates(&["a"]).await;
    let database = test.connect();
    let mut tx = database.begin().await.unwrap();
    sqlx::query("UPDATE aggregate SET version = 1").execute(tx.conn()).await.unwrap();
    // So that storing the events fails, after the business row was written.
    sqlx::query("DROP TABLE outbox").execute(tx.conn()).await.unwrap();
    let mut outbox = outbox();
    outbox.publish(&Noted::new("a", 1)).unwrap();
    database.commit(tx, outbox).await.unwrap_err();

    let version: i64 = sqlx::query_scalar("SELECT version FROM aggregate").fetch_one(database.pool()).await.unwrap();
    assert_eq!(version, 0);
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().rows, 0, "and the table is there still");
}

/// Writers in two processes, two relays, the publishing one stopped and another one killed on the way.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_key_are_first_published_in_commit_order_by_any_number_of_relays() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    const EACH: u32 = 40;
    let (test, kafka) = (TestDatabase::with_aggregates(&KEYS).await, TestKafka::start().await);
    let databases = [test.connect(), test.connect()];
    let clock = TestClock::default();
    let start = |index: usize| RunningRelay::start(relay_with(&databases[index], &kafka.config(), &clock, None));
    let (first, second) = (start(0), start(1));

    let mut writers = Vec::new();
    for (index, key) in KEYS.iter().enumerate() {
        for database in &databases {
            let (database, key) = (database.clone(), (*key).to_owned());
            // A pause now and then lets the relays see some of the rows and not the others.
            writers.push(tokio::spawn(async move {
                let mut ids = Vec::new();
                for turn in 0..EACH / 2 {
                    ids.push(increment(&database, &key).await);
                    if turn % 8 == u32::try_from(index).unwrap() {
                        tokio::task::yield_now().await;
                    }
                }
                ids
            }));
        }
    }
    first.stop().await;
    let third = start(0);
    drop(second);
    // The one that was killed cannot give its lease back.
    clock.set_forward(SignedDuration::from_secs(60));
    let mut ids = Vec::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }

    let numbers = first_numbers(&read(&kafka.config(), &ids).await);
    for key in KEYS {
        assert_eq!(numbers[key], (1..=EACH).collect::<Vec<u32>>(), "key {key}");
    }
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_event_waits_for_its_time_and_counts_from_then() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let (database, clock) = (test.connect(), TestClock::default());
    let running = RunningRelay::start(relay_with(&database, &kafka.config(), &clock, None));

    let tx = database.begin().await.unwrap();
    let mut outbox = outbox();
    let hour = SignedDuration::from_hours(1);
    let late = outbox.publish_at(&Noted::new("a", 1), Timestamp::now() + hour * 2).unwrap();
    let soon = outbox.publish_at(&Noted::new("a", 2), Timestamp::now() + hour).unwrap();
    let now = outbox.publish(&Noted::new("a", 3)).unwrap();
    for row in outbox.rows() {
        assert!(row.not_before.is_none_or(|due| row.envelope.time == due), "a delayed event happens when it is due");
    }
    database.commit(tx, outbox).await.unwrap();
    read(&kafka.config(), &[now]).await;
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().delayed, 2);

    clock.set_forward(hour + SignedDuration::from_mins(1));
    read(&kafka.config(), &[soon]).await;
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().delayed, 1);

    clock.set_forward(hour);
    let numbers = first_numbers(&read(&kafka.config(), &[late, soon, now]).await);
    assert_eq!(numbers["a"], [3, 2, 1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_many_events_is_published_whole_and_in_order() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    // More than one statement takes, and more than a relay reads at a time.
    let events: Vec<Noted> = (0..1200).map(|number| Noted::new(&format!("k{}", number % 40), number)).collect();
    let ids = publish(&database, &events).await;
    let running = RunningRelay::start(relay(&database, &kafka.config()));
    let numbers = first_numbers(&read(&kafka.config(), &ids).await);
    assert_eq!(numbers.values().map(Vec::len).sum::<usize>(), 1200);
    for (key, numbers) in numbers {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    running.stop().await;
}
