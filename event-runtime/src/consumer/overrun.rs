//! Handlers that neither answer by their deadline nor can be cut off at it: they block their thread, and a future is
//! dropped only where it waits. Such an attempt goes on, and holds its key, until it comes back.
//!
//! They are looked for by a thread of its own: where every worker thread of the runtime is blocked, nothing else would say so.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use super::{
    metrics::{ConsumerMetrics, GroupLabels},
    router::Job,
};
use crate::error::excerpt;

/// How long after its deadline a handler must have gone on to be called blocked: a machine that has more to do than it can
/// cuts handlers off late.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How much of a key is said. Characters.
const LONGEST_KEY: usize = 100;

/// A handler that blocks its thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The event's type.
    pub event: String,
    /// Where its record stands.
    pub origin: crate::Origin,
    /// The record's key.
    pub key: String,
    /// For how long the handler has been running, in seconds.
    pub seconds: u64,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overrun { event, origin, key, seconds } = self;
        write!(f, "{event} at {origin}, key {key}, for {seconds} s")
    }
}

/// The handlers of a consumer that run.
pub(super) struct Overruns {
    group: &'static str,
    metrics: ConsumerMetrics,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    next: u64,
    handlers: HashMap<u64, Handler>,
}

struct Handler {
    job: Arc<Job>,
    begun: Instant,
    deadline: Instant,
    /// Whether it was said that it blocks.
    blocks: bool,
}

impl Overruns {
    /// Looks for them until the last one is dropped.
    pub(super) fn start(group: &'static str, metrics: ConsumerMetrics) -> io::Result<Arc<Overruns>> {
        let overruns = Arc::new(Overruns { group, metrics, running: Mutex::default() });
        let (watched, span) = (Arc::downgrade(&overruns), tracing::Span::current());
        let watch = move || span.in_scope(|| watch(&watched));
        thread::Builder::new().name(format!("{group}-overruns")).spawn(watch)?;
        Ok(overruns)
    }

    /// A handler begins with `job`, and runs until what is returned is dropped.
    pub(super) fn begin(&self, job: &Arc<Job>, deadline: tokio::time::Instant) -> Begun<'_> {
        let (begun, deadline) = (Instant::now(), deadline.into_std());
        let mut running = self.running();
        let number = running.next;
        running.next += 1;
        running.handlers.insert(number, Handler { job: job.clone(), begun, deadline, blocks: false });
        Begun { overruns: self, number }
    }

    /// The one that has blocked its thread for the longest time.
    pub(super) fn longest(&self) -> Option<Overrun> {
        let running = self.running();
        let blocked = running.handlers.values().filter(|handler| handler.blocks);
        blocked.min_by_key(|handler| handler.begun).map(Handler::overrun)
    }

    fn look(&self) {
        for handler in self.running().handlers.values_mut() {
            if !handler.blocks && handler.deadline.elapsed() >= GRACE {
                handler.blocks = true;
                let labels = GroupLabels { group: self.group };
                self.metrics.overruns.get_or_create(&labels).inc();
                self.metrics.blocked_threads.get_or_create(&labels).inc();
                let Overrun { event, origin, key, seconds } = handler.overrun();
                let (group, event_id) = (self.group, handler.job.event_id());
                tracing::error!(
                    group,
                    event,
                    event_id,
                    %origin,
                    key,
                    seconds,
                    "the handler blocks its thread: its time is up and it cannot be cut off. Its key waits until it comes back"
                );
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(overruns: &Weak<Overruns>) {
    while let Some(overruns) = overruns.upgrade() {
        overruns.look();
        drop(overruns);
        thread::sleep(LOOK_INTERVAL);
    }
}

impl Handler {
    fn overrun(&self) -> Overrun {
        Overrun {
            event: self.job.event_type().to_owned(),
            origin: self.job.record.origin.clone(),
            key: excerpt(&self.job.key(), LONGEST_KEY),
            seconds: self.begun.elapsed().as_secs(),
        }
    }
}

/// A handler that runs.
pub(super) struct Begun<'a> {
    overruns: &'a Overruns,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(handler) = self.overruns.running().handlers.remove(&self.number) else { return };
        if handler.blocks {
            let group = self.overruns.group;
            self.overruns.metrics.blocked_threads.get_or_create(&GroupLabels { group }).dec();
            let Overrun { event, origin, key, seconds } = handler.overrun();
            let event_id = handler.job.event_id();
            tracing::warn!(group, event, event_id, %origin, key, seconds, "the handler has come back: that is a timeout");
        }
    }
}
