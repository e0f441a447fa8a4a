//! How fast transactional consumers are, each record in a transaction of its own and in batches, beside a loop written by
//! hand. It measures and asserts nothing about time:
//!
//! ```text
//! cargo test --release -p event-runtime --test it how_fast -- --ignored --nocapture
//! ```
//!
//! SQLite, or PostgreSQL where TEST_DATABASE_URL is set. `RECORDS=n` for another number.

use std::time::{Duration, Instant};

use event_runtime::{
    ConsumerBuilder, Database, Delivery, HandlerError, Outbox, TransactionalHandler, Tx, inbox, inbox::Fate,
};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use shared_events::{CorrelationId, Envelope, EventId};
use test_support::eventually;

use super::scene::{GROUP, Note, Scene};
use crate::stage::TestDatabase;

const ROUNDS: usize = 3;
const KEYS: usize = 1000;

/// A business row and an event for every note.
struct Keep;

impl TransactionalHandler for Keep {
    type Event = Note;

    async fn handle(&self, tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        keep(tx, &delivery.event).await?;
        outbox.publish(&delivery.event)?;
        Ok(())
    }
}

async fn keep(tx: &mut Tx, note: &Note) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO kept (record_key, body) VALUES ($1, $2)")
        .bind(note.key.clone())
        .bind(note.text.clone())
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn database() -> (TestDatabase, Database) {
    let test = TestDatabase::migrated().await;
    let database = test.connect();
    let mut tx = database.begin().await.unwrap();
    sqlx::query("CREATE TABLE kept (record_key TEXT, body TEXT)").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    (test, database)
}

fn note(number: usize) -> Note {
    Note::new(&format!("key-{}", number % KEYS), &format!("{number}: {}", "some text ".repeat(20)))
}

/// What anybody would write: one record after the other, each in a transaction, on so many connections.
async fn by_hand(records: usize, connections: usize) -> Duration {
    let (_test, database) = database().await;
    let begun = Instant::now();
    let work = stream::iter(0..records).map(|number| {
        let database = database.clone();
        tokio::spawn(async move {
            let (note, now) = (note(number), Timestamp::now());
            let mut tx = database.begin().await.unwrap();
            assert!(inbox::record(&mut tx, GROUP, EventId::new(), 0, Fate::Handled, now).await.unwrap());
            keep(&mut tx, &note).await.unwrap();
            let mut outbox = Outbox::root(GROUP, CorrelationId::new(), now);
            outbox.publish(&note).unwrap();
            database.commit(tx, outbox).await.unwrap();
        })
    });
    work.buffer_unordered(connections).for_each(|done| async { done.unwrap() }).await;
    begun.elapsed()
}

/// From the start of the consumer's first attempt to the last record, with everything in the topic before.
async fn by_the_runtime(records: usize, batch: usize) -> (Duration, f64) {
    let (_test, database) = database().await;
    let scene = Scene::with_partitions(6).await;
    let published = stream::iter(0..records).map(|number| {
        let (note, scene) = (note(number), &scene);
        async move { scene.publish_with(&note, &Envelope::new(&note, "test", Timestamp::now()), &[]).await }
    });
    published.buffer_unordered(500).collect::<()>().await;
    let handled = || scene.metric("consumer_records_handled_total") as usize;
    let _consumer = scene.start(ConsumerBuilder::new(GROUP).transactional(&database, Keep).batch(batch));
    let waits = Duration::from_millis(2);
    while handled() == 0 {
        tokio::time::sleep(waits).await;
    }
    let (begun, before) = (Instant::now(), handled());
    eventually(Duration::from_secs(300), "all records", async || match handled() {
        all if all >= records => Ok(()),
        some => Err(some),
    })
    .await;
    let took = begun.elapsed().mul_f64(records as f64 / (records - before) as f64);
    let mean = scene.metric("consumer_batch_records_sum") / scene.metric("consumer_batch_records_count").max(1.0);
    (took, mean)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn how_fast_records_are_handled_one_by_one_and_in_batches() {
    let records = std::env::var("RECORDS").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000);
    let server = TestDatabase::empty().await;
    println!(
        "{records} records: inbox, business and outbox row, {}",
        if server.is_sqlite() { "SQLite" } else { "PostgreSQL" }
    );
    let per_second = |took: Duration| (records as f64 / took.as_secs_f64()).round();
    for round in 1..=ROUNDS {
        let (one, eight) = (by_hand(records, 1).await, by_hand(records, 8).await);
        let ((single, _), (batches, mean)) = (by_the_runtime(records, 1).await, by_the_runtime(records, 256).await);
        println!(
            "round {round}: by hand {}/s on 1 connection, {}/s on 8; event-runtime {}/s one by one, {}/s in batches of {mean:.0} \
             on average: {:.1} and {:.1} times by hand",
            per_second(one),
            per_second(eight),
            per_second(single),
            per_second(batches),
            one.as_secs_f64() / batches.as_secs_f64(),
            eight.as_secs_f64() / batches.as_secs_f64(),
        );
    }
}
