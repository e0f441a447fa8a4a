//! A key that always fails costs the other keys nothing, and ends as dead letters in its order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use event_runtime::{
    ConsumerBuilder, Delivery, HandlerError, PlainHandler, RetryPolicy, consumer::dead_letter::DeadLetter,
};
use futures_util::{StreamExt as _, stream};

use super::scene::{GROUP, Note, PATIENCE, Scene};

const RECORDS: usize = 2000;
const KEYS: usize = 100;
const A_KEY: usize = RECORDS / KEYS;
const POISON: &str = "key-0";
const RETRIES: u32 = 3;
/// With 20 records a key, 200 ms at least: a machine's hiccups are small beside that.
const WORK: Duration = Duration::from_millis(10);
/// How much longer the healthy keys may take beside the poison.
const RATIO: f64 = 1.2;
/// A busy machine may take that many to measure it; keys that wait for each other never do.
const MOST_ROUNDS: usize = 12;

#[derive(Clone, Default)]
struct Works(Arc<Progress>);

#[derive(Default)]
struct Progress {
    poisoned: bool,
    /// When a healthy key's record was first begun, and when each was done.
    begun: Mutex<Option<Instant>>,
    done: Mutex<Vec<Instant>>,
    /// By the note's text.
    attempts: Mutex<HashMap<String, u32>>,
}

impl PlainHandler for Works {
    type Event = Note;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::limited(RETRIES).backoff(Duration::from_millis(10), Duration::from_millis(40))
    }

    async fn handle(&self, delivery: &Delivery<Note>) -> Result<(), HandlerError> {
        let Note { key, text } = &delivery.event;
        if key == POISON {
            *self.0.attempts.lock().unwrap().entry(text.clone()).or_default() += 1;
            return if self.0.poisoned { Err(HandlerError::retry("always")) } else { Ok(()) };
        }
        self.0.begun.lock().unwrap().get_or_insert_with(Instant::now);
        tokio::time::sleep(WORK).await;
        self.0.done.lock().unwrap().push(Instant::now());
        Ok(())
    }
}

/// How long the healthy keys take, with everything in the topic before.
async fn round(poisoned: bool) -> Duration {
    let scene = Scene::with_partitions(6).await;
    let publish_key = async |key: usize| {
        for number in 0..A_KEY {
            scene.publish(&format!("key-{key}"), &number.to_string()).await;
        }
    };
    stream::iter(0..KEYS).map(publish_key).buffer_unordered(KEYS).collect::<()>().await;
    let works = Works(Arc::new(Progress { poisoned, ..Progress::default() }));
    let consumer = scene.start(ConsumerBuilder::new(GROUP).plain(works.clone()).concurrency(KEYS));
    scene.wait_for_commit(RECORDS as i64).await;
    let done = works.0.done.lock().unwrap().clone();
    assert_eq!(done.len(), RECORDS - A_KEY, "each healthy record is handled once");
    let attempts = works.0.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), A_KEY);
    assert!(attempts.values().all(|attempts| *attempts == if poisoned { 1 + RETRIES } else { 1 }), "{attempts:?}");
    if poisoned {
        let records = scene.dead_letters(A_KEY).await;
        let letters = records.iter().map(|record| DeadLetter::read(record).unwrap());
        let letters: Vec<_> = letters.map(|letter| (letter.original.offset, letter.attempts)).collect();
        assert!(letters.is_sorted() && letters.len() == A_KEY, "in the order of the key: {letters:?}");
        assert!(letters.iter().all(|(_, attempts)| *attempts == 1 + RETRIES), "{letters:?}");
        assert_eq!(scene.metric("consumer_records_retried_total"), f64::from(RETRIES) * A_KEY as f64);
    }
    assert_eq!(scene.metric("consumer_dead_letters_total"), if poisoned { A_KEY as f64 } else { 0.0 });
    consumer.shutdown(PATIENCE).await.unwrap();
    let begun = works.0.begun.lock().unwrap().unwrap();
    done.into_iter().max().unwrap() - begun
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_always_fails_costs_the_others_nothing_and_keeps_its_order() {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    loop {
        without.push(round(false).await);
        with.push(round(true).await);
        let ratio = median(&with) / median(&without);
        println!(
            "{RECORDS} records of {KEYS} keys, {} rounds: {:.0} ms without poison, {:.0} ms beside it, ratio {ratio:.2}",
            with.len(),
            median(&without) * 1e3,
            median(&with) * 1e3,
        );
        if with.len() >= 3 && ratio <= RATIO {
            break;
        }
        assert!(with.len() < MOST_ROUNDS, "healthy keys wait for the one that fails");
    }
}
