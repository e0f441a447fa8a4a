//! Publishes the rows of an outbox.
//!
//! A relay is a loop over four steps: read the oldest rows, hand to the producer those whose key is free, take what was
//! acknowledged, and remove it in one transaction together with what [`OnPublished`] notes. It never waits for all of
//! what it sent: a partition without a leader holds back its own keys, nobody else's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Metrics, OnPublished, depth,
    lanes::Lanes,
    lease::Lease,
    outage::Outage,
    row::StoredRow,
    table::{self, BATCH, Outcome, Unreadable},
    wake::{Bell, Wake},
};
use crate::{
    Clock, Database,
    error::Chain,
    producer::{ProduceError, Producer},
};

/// Publishes the rows of one database's outbox. Every instance of a service runs one; one of them at a time does the
/// work, the others stand by.
pub struct Relay {
    database: Database,
    producer: Producer,
    service: &'static str,
    on_published: Option<Arc<dyn OnPublished>>,
    clock: Clock,
    metrics: Metrics,
    unknown_topic_patience: Duration,
    /// Tells this relay from all others in the lease.
    owner: String,
    kafka: Outage,
    storage: Outage,
}

/// How long rows that are on their way may take after the shutdown began.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(5);
/// An acknowledgement that takes longer is an outage, long before the producer gives up.
const SLOW: Duration = Duration::from_secs(3);
const RENEW: Duration = Duration::from_secs(2);
const LOOK_AT_DEPTH: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Relay {
    /// A relay for `service`, whose producer keeps its records' order.
    pub fn new(
        database: Database,
        producer: Producer,
        service: &'static str,
        on_published: Option<Arc<dyn OnPublished>>,
        clock: Clock,
    ) -> Relay {
        Relay {
            database,
            producer,
            service,
            on_published,
            clock,
            metrics: Metrics::unregistered(),
            unknown_topic_patience: Duration::from_secs(60),
            owner: Uuid::now_v7().to_string(),
            kafka: Outage::of("Kafka", service),
            storage: Outage::of("the database", service),
        }
    }

    /// Counts in `metrics`.
    pub fn with_metrics(self, metrics: Metrics) -> Relay {
        Relay { metrics, ..self }
    }

    /// Sets a row aside when its topic has been missing for so long (default: a minute). Brokers that have just started
    /// may not know their topics yet.
    pub fn with_unknown_topic_patience(self, unknown_topic_patience: Duration) -> Relay {
        Relay { unknown_topic_patience, ..self }
    }

    /// Publishes until `shutdown` is cancelled, then waits for the acknowledgements that are due and lets another relay
    /// take over at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wake = Wake::new(&self.database);
        while !shutdown.is_cancelled() {
            match Lease::acquire(&self.database, &self.owner, self.clock.now()).await {
                Ok(Some(lease)) => {
                    self.storage.over();
                    tracing::debug!(service = self.service, "publishing the outbox");
                    self.lead(lease, &mut wake, &shutdown).await;
                }
                Ok(None) => {
                    self.storage.over();
                    self.stand_by(&mut wake, &shutdown).await;
                }
                Err(error) => {
                    self.storage.failed(&error);
                    pause(Duration::from_secs(1), &shutdown).await;
                }
            }
        }
    }

    /// Passes the bell on to the relay that publishes, until it is time to look at the lease again.
    async fn stand_by(&self, wake: &mut Wake, shutdown: &CancellationToken) {
        let mut until = Box::pin(sleep(wake.poll_interval()));
        loop {
            let bell = tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut until => return,
                bell = wake.rung() => bell,
            };
            match bell {
                // Perhaps the lease is free.
                Bell::Elsewhere => return,
                Bell::Here => {
                    if let Err(error) = wake.ring_elsewhere().await {
                        tracing::debug!(%error, "the publishing relay will notice by polling");
                    }
                }
            }
        }
    }

    /// Publishes while the lease is held.
    async fn lead(&self, lease: Lease, wake: &mut Wake, shutdown: &CancellationToken) {
        let mut work = Work::new();
        while !shutdown.is_cancelled() {
            match self.step(&lease, &mut work, wake, shutdown).await {
                Ok(true) => self.storage.over(),
                Ok(false) => {
                    self.metrics.stand_by();
                    tracing::info!(service = self.service, "another relay publishes the outbox now");
                    return;
                }
                // What was acknowledged stays in hand, so that nothing is published twice for it.
                Err(error) => {
                    self.storage.failed(&error);
                    pause(Duration::from_millis(500), shutdown).await;
                }
            }
        }
        if let Err(error) = self.finish(lease, work, wake).await {
            let error = Chain(&error).to_string();
            tracing::warn!(
                service = self.service,
                error,
                "the last events stay in the outbox and may be published again"
            );
        }
    }

    /// Reads, sends, waits for something to happen, removes. False when the lease is lost.
    async fn step<'a>(
        &'a self,
        lease: &Lease,
        work: &mut Work<'a>,
        wake: &mut Wake,
        shutdown: &CancellationToken,
    ) -> Result<bool, sqlx::Error> {
        if work.look && work.lanes.has_room() {
            if !self.read(lease, work).await? {
                return Ok(false);
            }
            work.next_due = table::next_due(&self.database).await?;
        }
        let now = self.clock.now();
        if work.next_due.is_some_and(|due| due <= now) {
            if !table::move_due(&self.database, lease, now).await? {
                return Ok(false);
            }
            work.next_due = None;
            work.look = true;
        }
        if !work.look || !work.lanes.has_room() {
            let nap = work.next_due.map_or(Duration::MAX, |due| due.duration_since(now).unsigned_abs());
            self.wait(work, nap.min(wake.poll_interval()), wake, shutdown).await;
        }
        while let Some(Some(outcome)) = work.sending.next().now_or_never() {
            self.arrived(work, outcome);
        }
        self.watch_progress(work);
        if work.done.is_empty() && work.renewed.elapsed() < RENEW {
            return Ok(true);
        }
        self.settle(lease, work).await
    }

    /// False when the lease is lost.
    async fn read<'a>(&'a self, lease: &Lease, work: &mut Work<'a>) -> Result<bool, sqlx::Error> {
        let batch = table::read(&self.database, &work.lanes.in_hand()).await?;
        // A full batch: there may be more. Should setting rows aside fail, they are read again.
        work.look = batch.rows.len() == BATCH || !batch.unreadable.is_empty();
        for row in batch.rows {
            if let Some(row) = work.lanes.admit(row) {
                work.sending.push(self.deliver(row).boxed());
            }
        }
        if batch.unreadable.is_empty() {
            return Ok(true);
        }
        if !table::set_unreadable_aside(&self.database, lease, &batch.unreadable, self.clock.now()).await? {
            return Ok(false);
        }
        for Unreadable { seq, reason } in batch.unreadable {
            self.metrics.set_aside.inc();
            tracing::error!(
                service = self.service,
                seq,
                reason,
                "a row of the outbox is set aside in outbox_poison; mend it there and move it back"
            );
        }
        Ok(true)
    }

    /// Until an acknowledgement, a bell, or `nap` is over.
    async fn wait<'a>(&'a self, work: &mut Work<'a>, nap: Duration, wake: &mut Wake, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            Some(outcome) = work.sending.next() => self.arrived(work, outcome),
            _ = wake.rung() => work.look = true,
            () = sleep(nap) => work.look = true,
        }
    }

    /// Sets out the next row of the key before anything else happens: the transaction that removes this one takes a while.
    fn arrived<'a>(&'a self, work: &mut Work<'a>, outcome: Outcome) {
        if let Some(next) = work.lanes.next(&outcome.row().key) {
            work.sending.push(self.deliver(next).boxed());
        }
        work.progress = Instant::now();
        work.done.push(outcome);
    }

    /// Sends one row until Kafka has it or never will.
    async fn deliver(&self, row: StoredRow) -> Outcome {
        let began = Instant::now();
        let mut backoff = Duration::from_millis(100);
        loop {
            let error = match self.producer.send(row.to_record()).await {
                Ok(origin) => {
                    self.kafka.over();
                    self.count_published(&row);
                    return Outcome::Published(row, origin);
                }
                Err(error) => error,
            };
            self.metrics.retries.inc();
            match &error {
                ProduceError::TooLarge { .. } => return self.set_aside(row, &error),
                ProduceError::UnknownTopic { .. } if began.elapsed() >= self.unknown_topic_patience => {
                    return self.set_aside(row, &error);
                }
                ProduceError::UnknownTopic { .. } => {
                    let (id, error) = (row.event_id, Chain(&error).to_string());
                    tracing::warn!(service = self.service, event = %id, error, "the event waits for its topic");
                }
                _ => self.kafka.failed(&error),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_PAUSE);
        }
    }

    fn set_aside(&self, row: StoredRow, error: &ProduceError) -> Outcome {
        let reason = Chain(error).to_string();
        self.metrics.set_aside.inc();
        tracing::error!(
            service = self.service, event = %row.event_id, key = row.key, topic = row.topic, reason,
            "the event cannot be published and is set aside in outbox_poison; later events of its key go on"
        );
        Outcome::Poison(row, reason)
    }

    fn count_published(&self, row: &StoredRow) {
        let micros = u32::try_from((self.clock.now().as_microsecond() - row.created_at).max(0)).unwrap_or(u32::MAX);
        self.metrics.published.inc();
        self.metrics.publish_seconds.observe(f64::from(micros) / 1e6);
    }

    fn watch_progress(&self, work: &mut Work<'_>) {
        if work.sending.is_empty() {
            work.progress = Instant::now();
        } else if work.progress.elapsed() > SLOW {
            self.kafka.began("no acknowledgement for 3 s");
        }
    }

    /// Removes what arrived, or just extends the lease. False when the lease is lost.
    async fn settle(&self, lease: &Lease, work: &mut Work<'_>) -> Result<bool, sqlx::Error> {
        let now = self.clock.now();
        let held = if work.done.is_empty() {
            lease.renew(&self.database, now).await?
        } else {
            table::settle(&self.database, lease, self.on_published.as_deref(), &work.done, now).await?
        };
        work.renewed = Instant::now();
        for outcome in work.done.drain(..) {
            work.lanes.removed(outcome.row());
        }
        if work.measured.is_none_or(|measured| measured.elapsed() > LOOK_AT_DEPTH) {
            work.measured = Some(Instant::now());
            self.metrics.show(&depth(&self.database, now).await?);
        }
        Ok(held)
    }

    async fn finish(&self, lease: Lease, mut work: Work<'_>, wake: &Wake) -> Result<(), sqlx::Error> {
        let end = Instant::now() + LAST_ACKNOWLEDGEMENTS;
        // Rows that wait behind one on its way stay in the outbox.
        while let Ok(Some(outcome)) = timeout(end.saturating_duration_since(Instant::now()), work.sending.next()).await
        {
            work.done.push(outcome);
        }
        if self.settle(&lease, &mut work).await? {
            lease.release(&self.database).await?;
            wake.ring_elsewhere().await?;
        }
        Ok(())
    }
}

/// What a publishing relay has in hand.
struct Work<'a> {
    lanes: Lanes,
    sending: FuturesUnordered<BoxFuture<'a, Outcome>>,
    /// Arrived, and still in the table.
    done: Vec<Outcome>,
    /// There may be rows that were not read yet.
    look: bool,
    /// When the next delayed row is due.
    next_due: Option<Timestamp>,
    /// When the lease was last extended.
    renewed: Instant,
    /// When Kafka last acknowledged something, or nothing was on its way.
    progress: Instant,
    /// When the depth was last counted.
    measured: Option<Instant>,
}

impl Work<'_> {
    fn new() -> Self {
        let now = Instant::now();
        Work {
            lanes: Lanes::default(),
            sending: FuturesUnordered::new(),
            done: Vec::new(),
            look: true,
            next_due: None,
            renewed: now,
            progress: now,
            measured: None,
        }
    }
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(duration) => {}
    }
}
