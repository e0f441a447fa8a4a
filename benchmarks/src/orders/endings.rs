//! When orders ended, as the topics say: a thread reads along, and nobody is asked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use event_runtime::{
    Record,
    config::KafkaConfig,
    reader::{Position, ReadError, Reader},
};
use jiff::Timestamp;
use shared_events::{
    Event, OrderCancelled, OrderCompleted, OrderDeadlineReached,
    topics::{ORDER_DEADLINES, ORDERS},
};

use super::{grows_to, latency::Placed};

/// Reads until it is dropped.
pub struct Endings {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// By order: when its first `order.completed` was read.
    completed: Mutex<HashMap<String, Instant>>,
    completions: AtomicU64,
    deadlines: AtomicU64,
    /// What ends the run.
    failure: Mutex<Option<String>>,
}

impl Endings {
    /// Begins to read at the end of the topics.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn read(kafka: &KafkaConfig) -> anyhow::Result<Endings> {
        let topics = [ORDERS, ORDER_DEADLINES].map(|topic| topic.name.to_owned());
        let mut reader = Reader::open(kafka, &topics, Position::Start, Timestamp::now())?;
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let (seeing, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match reader.next(Duration::from_millis(100)) {
                    Ok(Some(record)) => seeing.note(&record, Instant::now()),
                    Ok(None) | Err(ReadError::Disturbed(_)) => {}
                    Err(error) => return seeing.fail(format!("the topics cannot be read: {error}")),
                }
            }
        });
        Ok(Endings { seen, stop, thread: Some(thread) })
    }

    /// Waits until so many orders are completed.
    ///
    /// # Errors
    /// When one was cancelled or completed twice, or no more end.
    pub async fn wait_for(&self, orders: u64) -> anyhow::Result<()> {
        grows_to("order.completed", orders, || self.seen.completions.load(Ordering::Relaxed)).await?;
        self.seen.check()
    }

    /// Waits until so many orders' deadlines have come.
    ///
    /// # Errors
    /// When no more come.
    pub async fn wait_for_deadlines(&self, orders: u64) -> anyhow::Result<()> {
        grows_to("order.deadline-reached", orders, || self.seen.deadlines.load(Ordering::Relaxed)).await?;
        self.seen.check()
    }

    /// When each of these was completed.
    ///
    /// # Errors
    /// When one was not.
    pub fn of(&self, placed: &[Placed]) -> anyhow::Result<Vec<Instant>> {
        let completed = self.seen.completed.lock().expect("nobody panics while holding it");
        let of = |placed: &Placed| {
            completed.get(&placed.order).copied().with_context(|| format!("order {} was not completed", placed.order))
        };
        placed.iter().map(of).collect()
    }
}

impl Drop for Endings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked, and the run has failed for want of endings.
            thread.join().ok();
        }
    }
}

impl Seen {
    fn note(&self, record: &Record, now: Instant) {
        let order = || String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let event_type = record.header("ce_type").unwrap_or_default();
        if event_type == OrderCompleted::TYPE.as_bytes() {
            let mut completed = self.completed.lock().expect("nobody panics while holding it");
            if completed.insert(order(), now).is_some() {
                drop(completed);
                return self.fail(format!("order {} was completed twice", order()));
            }
            self.completions.fetch_add(1, Ordering::Relaxed);
        } else if event_type == OrderCancelled::TYPE.as_bytes() {
            self.fail(format!("order {} was cancelled", order()));
        } else if event_type == OrderDeadlineReached::TYPE.as_bytes() {
            self.deadlines.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fail(&self, why: String) {
        self.failure.lock().expect("nobody panics while holding it").get_or_insert(why);
    }

    fn check(&self) -> anyhow::Result<()> {
        match &*self.failure.lock().expect("nobody panics while holding it") {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }
}
