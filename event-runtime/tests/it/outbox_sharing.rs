//! Several relays on one database share out the keys, also when some of them die.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use event_runtime::{Database, outbox::OutboxRow, reader::Brokers};
use jiff::SignedDuration;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use shared_events::EventId;
use sqlx::Row as _;
use test_support::eventually;

use crate::stage::{
    Noted, PATIENCE, RunningRelay, TOPIC, TestClock, TestDatabase, TestKafka, Told, becomes_empty, first_numbers,
    increment, outbox, publish, read, relay, relay_with,
};

/// How many buckets each relay has that has any.
async fn shares(database: &Database) -> Vec<i64> {
    let sql = "SELECT COUNT(*) FROM outbox_bucket WHERE owner <> '' GROUP BY owner ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(database.pool()).await.unwrap()
}

async fn shares_become(database: &Database, expected: &[i64]) {
    eventually(PATIENCE, "even share", async || match shares(database).await {
        shares if shares == expected => Ok(()),
        shares => Err(shares),
    })
    .await;
}

/// One event for each of many keys, so that every bucket has some.
fn many(number: u32) -> Vec<Noted> {
    (0..200).map(|key| Noted::new(&format!("k{key}"), number)).collect()
}

fn ids(told: &Told) -> Vec<EventId> {
    told.events().iter().map(|event| event.event_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_share_the_keys_and_one_takes_over_from_the_other() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let (one, other, clock) = (Arc::new(Told::default()), Arc::new(Told::default()), TestClock::default());
    let databases = [test.connect(), test.connect()];
    let first = RunningRelay::start(relay_with(&databases[0], &kafka.config(), &clock, Some(&one)));
    shares_become(&databases[0], &[16]).await;
    let second = RunningRelay::start(relay_with(&databases[1], &kafka.config(), &clock, Some(&other)));
    shares_become(&databases[0], &[8, 8]).await;

    let published = publish(&databases[0], &many(1)).await;
    read(&kafka.config(), &published).await;
    becomes_empty(&databases[0]).await;
    let (by_one, by_other) = (ids(&one), ids(&other));
    assert!(by_one.len() > 50 && by_other.len() > 50, "{} and {}", by_one.len(), by_other.len());
    assert_eq!(by_one.len() + by_other.len(), 200, "some were published twice");

    // It dies, so it gives nothing back: its leases have to end.
    drop(first);
    let published = publish(&databases[1], &many(2)).await;
    clock.set_forward(SignedDuration::from_secs(6));
    let numbers = first_numbers(&read(&kafka.config(), &published).await);
    assert_eq!(numbers.len(), 200);
    shares_become(&databases[1], &[16]).await;
    second.stop().await;
    assert_eq!(shares(&databases[1]).await, [0_i64; 0], "a relay that stops gives everything back at once");
}

/// A broker that takes its time has records on their way for longer than a free bucket stays free.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_changes_hands_when_nothing_of_it_is_on_its_way() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    kafka.cluster().broker_round_trip_time(1, Duration::from_millis(1500)).unwrap();
    let databases = [test.connect(), test.connect()];
    let clock = TestClock::default();
    let start = |index: usize| RunningRelay::start(relay_with(&databases[index], &kafka.config(), &clock, None));
    let first = start(0);
    let (mut published, mut second, mut numbers) = (Vec::new(), None, 0..200);
    while shares(&databases[0]).await != [8, 8] {
        let number = numbers.next().expect("an even share by now");
        let events: Vec<Noted> = (0..60).map(|key| Noted::new(&format!("{number}-{key}"), number)).collect();
        published.extend(publish(&databases[0], &events).await);
        if number == 10 {
            second = Some(start(1));
        }
        // As fast as it is published, more or less.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    kafka.cluster().broker_round_trip_time(1, Duration::from_millis(1)).unwrap();
    becomes_empty(&databases[0]).await;
    first.stop().await;
    second.unwrap().stop().await;
    let brokers = Brokers::new(&kafka.config(), None).unwrap();
    let ends = (0..TOPIC.partitions).map(|partition| brokers.watermarks(TOPIC.name, partition).unwrap().1);
    assert_eq!(ends.sum::<i64>(), i64::try_from(published.len()).unwrap(), "some were published twice");
}

/// Rows were handed to it, and wait for the broker; by the time that it is back, they are another relay's.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lost_its_buckets_publishes_nothing_more_of_them() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    let (late, heir) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let (clock, later) = (TestClock::default(), TestClock::default());
    let databases = [test.connect(), test.connect()];
    let mut config = kafka.config();
    // So short that rows are sent anew all the time.
    config.settings.push("message.timeout.ms=200".to_owned());
    let first = RunningRelay::start(relay_with(&databases[0], &config, &clock, Some(&late)));
    let warm_up = publish(&databases[0], &[Noted::new("a", 0)]).await;
    becomes_empty(&databases[0]).await;

    kafka.cluster().broker_down(1).unwrap();
    let published = publish(&databases[0], &many(1)).await;
    later.set_forward(SignedDuration::from_mins(1));
    let second = RunningRelay::start(relay_with(&databases[1], &config, &later, Some(&heir)));
    // The first one looks again once a second, and has found out by the time that the second one has looked three times.
    for _ in 0..3 {
        let before = expires_at(&databases[1]).await;
        eventually(PATIENCE, "extended leases", async || {
            if expires_at(&databases[1]).await > before { Ok(()) } else { Err(before) }
        })
        .await;
    }
    kafka.cluster().broker_up(1).unwrap();
    let records = read(&config, &published).await;
    becomes_empty(&databases[1]).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(records.len(), published.len(), "published by both");
    assert_eq!((ids(&late), ids(&heir).len()), (warm_up, published.len()));
}

async fn expires_at(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT MIN(expires_at) FROM outbox_bucket").fetch_one(database.pool()).await.unwrap()
}

/// Relays come, stop and die at random while events are said; `OUTBOX_SEED` repeats a run as far as it can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn relays_that_come_and_die_at_random_keep_the_order_of_each_key() {
    const EACH: u32 = 60;
    let keys: Vec<String> = (0..12).map(|key| format!("k{key}")).collect();
    let seed = std::env::var("OUTBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("OUTBOX_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (test, kafka, clock) =
        (TestDatabase::with_aggregates(&keys).await, TestKafka::start().await, TestClock::default());
    let database = test.connect();
    let writers = keys.iter().cloned().map(|key| {
        let (database, pauses) = (test.connect(), random.random_range(0..20));
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..EACH {
                ids.push(increment(&database, &key).await);
                tokio::time::sleep(Duration::from_millis(pauses)).await;
            }
            ids
        })
    });
    let writers = tokio::spawn(futures_util::future::join_all(writers.collect::<Vec<_>>()));

    let mut relays: Vec<RunningRelay> = Vec::new();
    let written = Arc::new(AtomicBool::new(false));
    let mut turns = 0;
    while turns < 30 || !written.load(Ordering::SeqCst) {
        turns += 1;
        match random.random_range(0..4) {
            0 | 1 if relays.len() < 4 => {
                relays.push(RunningRelay::start(relay_with(&test.connect(), &kafka.config(), &clock, None)));
            }
            2 if !relays.is_empty() => {
                // Dropped, so it dies with rows in hand and leases that nobody gives back.
                drop(relays.swap_remove(random.random_range(0..relays.len())));
                clock.set_forward(SignedDuration::from_secs(6));
            }
            3 if !relays.is_empty() => relays.swap_remove(random.random_range(0..relays.len())).stop().await,
            _ => {}
        }
        written.store(writers.is_finished(), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
    }
    let published: Vec<EventId> = writers.await.unwrap().into_iter().flat_map(|ids| ids.unwrap()).collect();
    drop(relays);
    clock.set_forward(SignedDuration::from_secs(6));
    let last = RunningRelay::start(relay_with(&database, &kafka.config(), &clock, None));
    let numbers = first_numbers(&read(&kafka.config(), &published).await);
    for key in keys {
        assert_eq!(numbers[&key], (1..=EACH).collect::<Vec<u32>>(), "key {key}, OUTBOX_SEED={seed}");
    }
    becomes_empty(&database).await;
    last.stop().await;
}

/// Rows from before there were buckets, more than are sorted at a time; then one that has its bucket already.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_bucket_are_published_before_what_came_after_them() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let mut events: Vec<Noted> = (0..600).map(|number| Noted::new(&format!("k{}", number % 3), number)).collect();
    let mut published = publish(&database, &events).await;
    let mut tx = database.begin().await.unwrap();
    sqlx::query("UPDATE outbox SET bucket = NULL").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    events = (600..603).map(|number| Noted::new(&format!("k{}", number % 3), number)).collect();
    published.extend(publish(&database, &events).await);

    let running = RunningRelay::start(relay(&database, &kafka.config()));
    let numbers = first_numbers(&read(&kafka.config(), &published).await);
    for (key, numbers) in &numbers {
        assert!(numbers.len() == 201 && numbers.is_sorted(), "{key}: {numbers:?}");
    }
    becomes_empty(&database).await;
    running.stop().await;
}

/// Only PostgreSQL has several writers. Their sequence numbers are given out before they commit, so a relay is past a number
/// that is still to come. Nothing may be missed then; in order are those whose writers locked what the key stands for.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_commits_behind_later_numbers_is_published() {
    let test = TestDatabase::migrated().await;
    if test.is_sqlite() {
        return;
    }
    let kafka = TestKafka::start().await;
    let database = test.connect();
    let mut slow = outbox();
    slow.publish(&Noted::new("same", 1)).unwrap();
    slow.publish(&Noted::new("other", 1)).unwrap();
    let late: Vec<EventId> = slow.rows().iter().map(|row| row.envelope.id).collect();
    let mut open = database.begin().await.unwrap();
    for row in slow.rows() {
        store(&mut open, row).await;
    }

    let running = RunningRelay::start(relay(&database, &kafka.config()));
    let early = publish(&database, &[Noted::new("same", 2), Noted::new("third", 2)]).await;
    read(&kafka.config(), &early).await;
    becomes_empty(&database).await;
    open.commit().await.unwrap();
    let last = publish(&database, &[Noted::new("same", 3)]).await;
    let numbers = first_numbers(&read(&kafka.config(), &[late, early, last].concat()).await);
    let expected = [("other", vec![1]), ("same", vec![2, 1, 3]), ("third", vec![2])];
    let expected = expected.map(|(key, numbers)| (key.to_owned(), numbers));
    assert_eq!(numbers.into_iter().collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
    becomes_empty(&database).await;
    running.stop().await;
}

/// As the outbox does it just before a commit, which leaves no time in between.
async fn store(tx: &mut event_runtime::Tx, row: &OutboxRow) {
    let first: i64 = sqlx::query(
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, created_at) VALUES ($1, $2, $3, $4, $5, 0) \
         RETURNING seq",
    )
    .bind(row.envelope.id.to_string())
    .bind(row.topic.name)
    .bind(row.key.clone())
    .bind(serde_json::to_string(&row.envelope.to_headers()).unwrap())
    .bind(row.value.clone())
    .fetch_one(tx.conn())
    .await
    .unwrap()
    .get(0);
    assert!(first > 0);
}
