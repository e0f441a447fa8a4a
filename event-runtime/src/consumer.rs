//! The consumer: a poll thread that owns the Kafka client, a dispatcher that owns the pure scheduler, and one task a
//! running attempt.
//!
//! ```text
//!  Kafka ── poll thread ── records, assigned, revoked ──▶ dispatcher ── attempts ──▶ handlers
//!               ▲                                             │ scheduler
//!               └────────── commit, pause, resume ────────────┘
//! ```
//!
//! - An offset is committed once every record below it is handled or dead-lettered and acknowledged.
//! - Records of one key run one after the other; others run side by side.
//! - Records of transactional handlers that are ready at the same time share a transaction.
//! - A record that ends the process is dead-lettered after as many deaths as it has attempts, where the consumer has a
//!   database to count them in; a consumer of plain handlers alone has none, and begins with such a record again and again.
//! - On a revoke the partitions' attempts are drained and their offsets committed before the revoke returns.
//!
//! What it leaves out: exactly-once across Kafka transactions; the inbox makes effects happen once.

mod attempt;
mod batch;
mod builder;
mod chunk;
mod client;
mod commands;
mod committer;
mod complaints;
mod custody;
pub mod dead_letter;
mod dispatch;
mod ends;
#[cfg(test)]
mod fuzz;
mod inspect;
mod kinds;
mod metrics;
mod overrun;
mod poll;
mod progress;
mod rebalance;
mod router;
mod unread;
mod verdicts;
mod watchdog;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

pub use self::{
    builder::ConsumerBuilder,
    client::StartError,
    inspect::{InFlight, InFlightState},
    metrics::ConsumerMetrics,
    overrun::Overrun,
};
use self::{dispatch::Control, overrun::Overruns, poll::Pulse, rebalance::Membership};
use crate::{
    Clock,
    config::KafkaConfig,
    producer::Producer,
    scheduler::{Flood, Stall},
};

/// A poll thread that has not polled for this long is stuck. A revoke may take its drain deadline and a commit.
const STALLED: Duration = Duration::from_secs(30);
/// How long committing and leaving the group may take beyond a shutdown's deadline for handlers.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a consumer runs with.
pub struct ConsumerContext {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Writes dead letters.
    pub producer: Producer,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where it counts. One for all consumers of a process.
    pub metrics: ConsumerMetrics,
}

/// A running consumer. Dropping it stops it without waiting for what is in flight.
pub struct Consumer {
    group: &'static str,
    control: mpsc::Sender<Control>,
    membership: Arc<Membership>,
    pulse: Arc<Pulse>,
    closed: watch::Receiver<bool>,
    flood: watch::Receiver<Option<Flood>>,
    stall: watch::Receiver<Option<Stall>>,
    overruns: Arc<Overruns>,
}

/// Why a consumer does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It has not joined its group yet.
    #[error("consumer group {0} has not been assigned partitions yet")]
    NotAssigned(&'static str),
    /// Its poll thread hangs.
    #[error("consumer group {0} has not polled for {1:?}")]
    Stalled(&'static str, Duration),
    /// Its Kafka client reads nothing although there is something.
    #[error(
        "consumer group {group} reads nothing from {} at offset {} although a record is there; its Kafka client is being \
         replaced, and if that does not help, restart the service",
        stall.partition,
        stall.position
    )]
    NothingRead {
        /// The group.
        group: &'static str,
        /// Where.
        stall: Stall,
    },
    /// Too many of its records could not be handled.
    #[error(
        "consumer group {group} has stopped handling: {} of the {} records of a minute went to its dead-letter topics. \
         Look at why (`eventctl dlt list --group {group}`) and mend the cause: it tries one record at a time by \
         itself and goes on when one is handled; a restart tries at once",
        flood.dead_letters,
        flood.records
    )]
    DeadLetterFlood {
        /// The group.
        group: &'static str,
        /// What stopped it.
        flood: Flood,
    },
    /// One of its handlers blocks a thread.
    #[error(
        "consumer group {group} has a handler that blocks its thread, although its time is up: {overrun}. It cannot be cut \
         off and its key waits for it; if it does not come back, restart the service"
    )]
    Blocked {
        /// The group.
        group: &'static str,
        /// Which one; the one that has been running for the longest time.
        overrun: Overrun,
    },
    /// It has ended.
    #[error("consumer group {0} has stopped")]
    Stopped(&'static str),
}

/// A consumer that could not be stopped in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consumer group {0} did not leave in time: the broker will notice when its session ends")]
pub struct ShutdownError(&'static str);

impl Consumer {
    /// Its consumer group.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Whether it has joined its group and polls.
    ///
    /// # Errors
    /// Says why it does not.
    pub fn ready(&self) -> Result<(), NotReady> {
        let idle = self.pulse.age();
        if *self.closed.borrow() {
            Err(NotReady::Stopped(self.group))
        } else if !self.membership.assigned.load(Ordering::Relaxed) {
            Err(NotReady::NotAssigned(self.group))
        } else if idle > STALLED {
            Err(NotReady::Stalled(self.group, idle))
        } else if let Some(stall) = self.stall.borrow().clone() {
            Err(NotReady::NothingRead { group: self.group, stall })
        } else if let Some(flood) = *self.flood.borrow() {
            Err(NotReady::DeadLetterFlood { group: self.group, flood })
        } else if let Some(overrun) = self.overruns.longest() {
            Err(NotReady::Blocked { group: self.group, overrun })
        } else {
            Ok(())
        }
    }

    /// What it has in hand of `key`.
    pub async fn inspect(&self, key: &str) -> Vec<InFlight> {
        let (answer, answered) = oneshot::channel();
        if self.control.send(Control::Inspect { key: key.into(), answer }).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Resolves when it has stopped, whoever asked for that.
    pub async fn stopped(&self) {
        let mut closed = self.closed.clone();
        // An error means that the poll thread is gone, which is as good.
        closed.wait_for(|closed| *closed).await.ok();
    }

    /// Starts nothing more, waits up to `deadline` for what is in flight, commits and leaves the group.
    ///
    /// # Errors
    /// When the group could not be left in time.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), ShutdownError> {
        let deadline = Instant::now() + deadline;
        let stop = async {
            // An error means that it stops already.
            self.control.send(Control::Shutdown { deadline }).await.ok();
            self.stopped().await;
        };
        // Leaving a group may block in librdkafka, and nothing can be done about that but not to wait.
        timeout_at(deadline + CLOSE_PATIENCE, stop).await.map_err(|_| ShutdownError(self.group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shutdown_waits_for_nobody_beyond_its_deadline_and_the_close() {
        let (control, _requests) = mpsc::channel(1);
        // A dispatcher that takes nothing in, and a poll thread that does not end.
        control.try_send(Control::Shutdown { deadline: Instant::now() }).ok().unwrap();
        let (_closing, closed) = watch::channel(false);
        let consumer = Consumer {
            group: "notes-service",
            control,
            membership: Arc::default(),
            pulse: Arc::new(Pulse::new()),
            closed,
            flood: watch::channel(None).1,
            stall: watch::channel(None).1,
            overruns: Overruns::start("notes-service", ConsumerMetrics::default()).unwrap(),
        };
        let began = Instant::now();
        let left = timeout_at(began + CLOSE_PATIENCE * 3, consumer.shutdown(Duration::from_millis(100))).await;
        assert_eq!(left, Ok(Err(ShutdownError("notes-service"))), "after {:?}", began.elapsed());
    }
}
