//! How the outbox carries a load. Ignored unless asked for, because what it prints means nothing beside other tests:
//!
//! `cargo test -p event-runtime --test it outbox_load -- --ignored --nocapture --test-threads=1`, on PostgreSQL with
//! `TEST_DATABASE_URL` set; `OUTBOX_ROWS=1000000` sets the backlog.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use event_runtime::{
    Database, Tx,
    outbox::{OnPublished, Published, Relay},
    producer::Producer,
};
use futures_util::{FutureExt as _, future::BoxFuture};

use crate::stage::{Noted, RunningRelay, TestClock, TestDatabase, TestKafka, publish};

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
