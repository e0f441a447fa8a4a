//! How the outbox carries a load. Times and memory are printed, and mean something when nothing else runs:
//!
//! `OUTBOX_ROWS=1000000 cargo test -p event-runtime --test it outbox_load -- --include-ignored --nocapture
//! --test-threads=1`, on PostgreSQL with `TEST_DATABASE_URL` set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use event_runtime::{
    Database, Tx,
    outbox::{OnPublished, Published, Relay, depth},
    producer::Producer,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use crate::stage::{Noted, PATIENCE, RunningRelay, TestClock, TestDatabase, TestKafka, publish};

/// Counts what it is told.
#[derive(Default)]
struct Counted(AtomicUsize);

impl OnPublished for Counted {
    fn published<'a>(&'a self, _: &'a mut Tx, rows: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        self.0.fetch_add(rows.len(), Ordering::SeqCst);
        async { Ok(()) }.boxed()
    }
}

fn counting_relay(database: &Database, kafka: &TestKafka) -> (Relay, Arc<Counted>) {
    let counted = Arc::new(Counted::default());
    let producer = Producer::new(&kafka.config()).unwrap();
    let clock = TestClock::default().clock();
    (Relay::new(database.clone(), producer, "test", Some(Arc::clone(&counted) as Arc<_>), clock), counted)
}

/// As Kafka leaves it that was away for hours. `OUTBOX_ROWS` says how many events wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_drained_with_flat_memory() {
    const DISTINCT: usize = 2_000;
    /// More than the relay and the embedded broker are meant to hold.
    const MOST_GROWTH: u64 = 160 << 20;
    let rows: usize = std::env::var("OUTBOX_ROWS").map_or(4_000, |rows| rows.parse().unwrap());
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    fill(&database, rows, DISTINCT).await;
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().rows, rows as u64);

    let (before, began) = (resident_bytes(), Instant::now());
    let (relay, counted) = counting_relay(&database, &kafka);
    let running = RunningRelay::start(relay);
    let (mut most, mut progress) = (before, (0, Instant::now()));
    while progress.0 < rows {
        let done = counted.0.load(Ordering::SeqCst);
        if done > progress.0 {
            progress = (done, Instant::now());
        }
        assert!(
            progress.1.elapsed() < PATIENCE,
            "nothing was published for {PATIENCE:?}, after {done} of {rows} events"
        );
        most = most.max(resident_bytes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    running.stop().await;
    assert_eq!(counted.0.load(Ordering::SeqCst), rows, "an event was removed twice");
    assert_eq!(depth(&database, Timestamp::now()).await.unwrap().rows, 0);
    println!(
        "{rows} rows in {took:.1?}: {:.0} rows/s; {} MiB before, {} MiB at most",
        rows as f64 / took.as_secs_f64(),
        before >> 20,
        most >> 20
    );
    // A short run beside other tests says nothing about memory.
    assert!(rows < 100_000 || most - before < MOST_GROWTH, "memory grew by {} MiB", (most - before) >> 20);
}

/// Puts `rows` events into the outbox: some, and then copies of them, which keep their ids and keys.
async fn fill(database: &Database, rows: usize, distinct: usize) {
    let events: Vec<Noted> =
        (0..distinct).map(|key| Noted { text: "x".repeat(200), ..Noted::new(&format!("order-{key}"), 0) }).collect();
    for events in events[..distinct.min(rows)].chunks(1000) {
        publish(database, events).await;
    }
    let mut there = distinct.min(rows);
    while there < rows {
        let more = distinct.min(rows - there);
        let mut tx = database.begin().await.unwrap();
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO outbox (event_id, topic, record_key, headers, value, bucket, created_at) \
             SELECT event_id, topic, record_key, headers, value, bucket, created_at FROM outbox ORDER BY seq LIMIT {more}"
        )))
        .execute(tx.conn())
        .await
        .unwrap();
        tx.commit().await.unwrap();
        there += more;
    }
}

/// Memory of this process; 0 where the system does not tell it in the way of Linux.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn time_from_commit_to_publication_at_rest() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    let database = test.connect();
    let (relay, counted) = counting_relay(&database, &kafka);
    let running = RunningRelay::start(relay);
    let mut took = Vec::new();
    for number in 0..300 {
        let began = Instant::now();
        publish(&database, &[Noted::new(&format!("k{number}"), number)]).await;
        while counted.0.load(Ordering::SeqCst) <= took.len() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    println!("commit to publication: median {:?}, 95 % {:?}, most {:?}", took[150], took[285], took[299]);
    let cpu = cpu_ticks();
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("at rest: {} ms of CPU in 20 s, brokers included", (cpu_ticks() - cpu) * 10);
    running.stop().await;
}

/// Of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
