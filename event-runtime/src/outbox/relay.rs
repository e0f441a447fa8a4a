//! Publishes the rows of an outbox.
//!
//! A relay is a loop over five steps: see which buckets are its own, read their oldest rows, hand to the producer those whose
//! key is free, take what was acknowledged, and remove it in one transaction together with what [`OnPublished`] notes. It
//! never waits for all of what it sent: a partition without a leader holds back its own keys, nobody else's.

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
    Metrics, OnPublished,
    bucket::{Bucket, Buckets},
    depth,
    lanes::Lanes,
    lease::Holder,
    outage::Outage,
    publisher::Publisher,
    row::StoredRow,
    table::{self, BATCH, Done, Fate},
    wake::{Bell, News, Wake},
};
use crate::{Clock, Database, error::Chain, producer::Producer};

/// Publishes the rows of one database's outbox. Every instance of a service runs one, and they share out the keys.
pub struct Relay {
    database: Database,
    on_published: Option<Arc<dyn OnPublished>>,
    clock: Clock,
    holder: Holder,
    publisher: Publisher,
    storage: Outage,
}

/// How long rows that are on their way may take after the shutdown began.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(5);
/// An acknowledgement that takes longer is an outage, long before the producer gives up.
const SLOW: Duration = Duration::from_secs(3);
/// How often leases are extended, and those of others looked at.
const LOOK_AT_LEASES: Duration = Duration::from_secs(1);
const LOOK_AT_DEPTH: Duration = Duration::from_secs(5);

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
            on_published,
            clock: clock.clone(),
            holder: Holder::new(Uuid::now_v7().to_string()),
            publisher: Publisher::new(producer, service, clock),
            storage: Outage::of("the database", service),
        }
    }

    /// Counts in `metrics`.
    pub fn with_metrics(mut self, metrics: Metrics) -> Relay {
        self.publisher.metrics = metrics;
        self
    }

    /// Sets a row aside when its topic has been missing for so long (default: a minute). Brokers that have just started
    /// may not know their topics yet.
    pub fn with_unknown_topic_patience(mut self, unknown_topic_patience: Duration) -> Relay {
        self.publisher.unknown_topic_patience = unknown_topic_patience;
        self
    }

    /// Publishes until `shutdown` is cancelled, then waits for the acknowledgements that are due and lets the other relays
    /// take over at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wake = Wake::new(&self.database, self.holder.name());
        let mut work = Work::new();
        while !shutdown.is_cancelled() {
            match self.step(&mut work, &mut wake, &shutdown).await {
                Ok(()) => self.storage.over(),
                // What was acknowledged stays in hand, so that nothing is published twice for it.
                Err(error) => {
                    self.storage.failed(&error);
                    work.look = true;
                    pause(Duration::from_millis(500), &shutdown).await;
                }
            }
        }
        if let Err(error) = self.finish(work, &wake).await {
            let (service, error) = (self.publisher.service, Chain(&error).to_string());
            tracing::warn!(service, error, "the last events stay in the outbox and may be published again");
        }
    }

    /// Reads, sends, waits for something to happen, removes.
    async fn step<'a>(
        &'a self,
        work: &mut Work<'a>,
        wake: &mut Wake,
        shutdown: &CancellationToken,
    ) -> Result<(), sqlx::Error> {
        if work.leases_due() {
            self.look_at_leases(work, wake).await?;
        }
        if work.look && work.lanes.has_room() {
            self.read(work).await?;
            self.fulfil_duties(work, wake).await?;
        }
        if !work.look || !work.lanes.has_room() {
            let now = self.clock.now();
            let nap = work.next_due.map_or(Duration::MAX, |due| due.duration_since(now).unsigned_abs());
            let nap = nap.min(wake.poll_interval()).min(work.until_leases());
            self.wait(work, nap, wake, shutdown).await;
        } else if let Some(bell) = wake.rung().now_or_never() {
            self.heard(bell, work, wake).await;
        }
        while let Some(Some((row, fate))) = work.sending.next().now_or_never() {
            self.arrived(work, row, fate);
        }
        self.watch_progress(work);
        if work.done.is_empty() { Ok(()) } else { self.settle(work).await }
    }

    /// Extends this relay's leases, and evens out its share with the other relays.
    async fn look_at_leases(&self, work: &mut Work<'_>, wake: &Wake) -> Result<(), sqlx::Error> {
        let (share, began, now) = (&self.publisher.share, Instant::now(), self.clock.now());
        let before = share.held();
        let standing = self.holder.extend(&self.database, now).await?;
        share.extended(&standing, began);
        work.leases_seen = Some(began);
        if !standing.free.is_empty() {
            share.taken(self.holder.take(&self.database, standing.free, now).await?);
            work.look = true;
        }
        self.give_back(work, wake).await?;
        let held = share.held();
        self.publisher.metrics.buckets.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        if held != before {
            let (service, buckets) = (self.publisher.service, held.len());
            tracing::debug!(service, buckets, of = Buckets::all().len(), "publishing these buckets of the outbox");
        }
        self.measure(work, held, now).await;
        Ok(())
    }

    /// Gives back what others are to have, bucket by bucket, once nothing of it is on its way.
    async fn give_back(&self, work: &mut Work<'_>, wake: &Wake) -> Result<(), sqlx::Error> {
        let share = &self.publisher.share;
        let ready = share.leaving().without(work.lanes.buckets());
        if !ready.is_empty() {
            self.holder.release(&self.database, ready).await?;
            share.given_back(ready);
            wake.ring_elsewhere(News::Free).await;
        }
        Ok(())
    }

    /// One relay counts what waits, for all of them.
    async fn measure(&self, work: &mut Work<'_>, held: Buckets, now: Timestamp) {
        let metrics = &self.publisher.metrics;
        if !held.contains(Bucket::FIRST) {
            return metrics.stand_by();
        }
        if work.measured.is_some_and(|measured| measured.elapsed() < LOOK_AT_DEPTH) {
            return;
        }
        work.measured = Some(Instant::now());
        match depth(&self.database, now).await {
            Ok(depth) => metrics.show(&depth),
            // A row that cannot be counted must not keep the others from being published.
            Err(error) => tracing::debug!(error = %Chain(&error), "the outbox was not counted"),
        }
    }

    async fn read<'a>(&'a self, work: &mut Work<'a>) -> Result<(), sqlx::Error> {
        let open = self.publisher.share.open();
        if open.is_empty() {
            work.look = false;
            return Ok(());
        }
        let batch = table::read(&self.database, &open, &work.lanes.in_hand()).await?;
        // A full batch: there may be more.
        work.look = batch.rows.len() + batch.unreadable.len() == BATCH;
        for row in batch.rows {
            if let Some(row) = work.lanes.admit(row) {
                work.sending.push(self.publisher.deliver(row).boxed());
            }
        }
        for row in batch.unreadable {
            if let Fate::Poison(reason) = &row.fate
                && work.lanes.hold(row.seq, row.bucket, 0)
            {
                let (service, seq) = (self.publisher.service, row.seq);
                self.publisher.metrics.set_aside.inc();
                tracing::error!(service, seq, reason, "a row of the outbox is set aside; `outbox list` shows it");
                work.done.push(row);
            }
        }
        Ok(())
    }

    /// What one relay does for all: give rows without a bucket theirs, and move delayed rows that are due.
    async fn fulfil_duties(&self, work: &mut Work<'_>, wake: &Wake) -> Result<(), sqlx::Error> {
        work.next_due = None;
        let open = self.publisher.share.open();
        let Some(fence) = open.get(&Bucket::FIRST).copied() else { return Ok(()) };
        let duties = table::duties(&self.database).await?;
        let now = self.clock.now();
        let due = duties.next_due.is_some_and(|due| due <= now);
        let mut held = true;
        if duties.unsorted {
            held = table::sort(&self.database, &self.holder, fence, now).await?;
        }
        if due && held {
            held = table::move_due(&self.database, &self.holder, fence, now).await?;
        }
        if !held {
            work.leases_seen = None;
        } else if due || duties.unsorted {
            // Rows for anyone, and perhaps more to do.
            work.look = true;
            if open.len() < Buckets::all().len() {
                wake.ring_elsewhere(News::Rows).await;
            }
        } else {
            work.next_due = duties.next_due;
        }
        Ok(())
    }

    /// Until an acknowledgement, a bell, or `nap` is over.
    async fn wait<'a>(&'a self, work: &mut Work<'a>, nap: Duration, wake: &mut Wake, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            Some((row, fate)) = work.sending.next() => self.arrived(work, row, fate),
            bell = wake.rung() => self.heard(bell, work, wake).await,
            () = sleep(nap) => work.look = true,
        }
    }

    async fn heard(&self, bell: Bell, work: &mut Work<'_>, wake: &Wake) {
        match bell {
            Bell::Here(buckets) => {
                let open = self.publisher.share.open().into_keys().collect();
                work.look |= !buckets.and(open).is_empty();
                if !buckets.without(open).is_empty() {
                    wake.ring_elsewhere(News::Rows).await;
                }
            }
            Bell::Rows => work.look = true,
            Bell::Free => work.leases_seen = None,
        }
    }

    /// Sets out the next row of the key before anything else happens: the transaction that removes this one takes a while.
    fn arrived<'a>(&'a self, work: &mut Work<'a>, row: StoredRow, fate: Option<Fate>) {
        let Some(fate) = fate else { return work.lanes.withdraw(&row) };
        if let Some(next) = work.lanes.next(&row.key) {
            work.sending.push(self.publisher.deliver(next).boxed());
        }
        work.progress = Instant::now();
        work.done.push(Done { seq: row.seq, bucket: row.bucket, fence: row.fence, fate });
    }

    fn watch_progress(&self, work: &mut Work<'_>) {
        if work.sending.is_empty() {
            work.progress = Instant::now();
        } else if work.progress.elapsed() > SLOW {
            self.publisher.kafka.began("no acknowledgement for 3 s");
        }
    }

    /// Removes what arrived.
    async fn settle(&self, work: &mut Work<'_>) -> Result<(), sqlx::Error> {
        let on_published = self.on_published.as_deref();
        if !table::settle(&self.database, &self.holder, on_published, &work.done, self.clock.now()).await? {
            let service = self.publisher.service;
            tracing::info!(service, "another relay has taken buckets over; some events may be published twice");
            work.leases_seen = None;
        }
        for row in work.done.drain(..) {
            work.lanes.removed(row.seq);
        }
        Ok(())
    }

    async fn finish(&self, mut work: Work<'_>, wake: &Wake) -> Result<(), sqlx::Error> {
        let end = Instant::now() + LAST_ACKNOWLEDGEMENTS;
        // Rows that wait behind one on its way stay in the outbox.
        while let Ok(Some((row, fate))) =
            timeout(end.saturating_duration_since(Instant::now()), work.sending.next()).await
        {
            if let Some(fate) = fate {
                work.done.push(Done { seq: row.seq, bucket: row.bucket, fence: row.fence, fate });
            }
        }
        if !work.done.is_empty() {
            self.settle(&mut work).await?;
        }
        self.holder.leave(&self.database).await?;
        wake.ring_elsewhere(News::Free).await;
        Ok(())
    }
}

/// What a relay has in hand.
struct Work<'a> {
    lanes: Lanes,
    sending: FuturesUnordered<BoxFuture<'a, (StoredRow, Option<Fate>)>>,
    /// Arrived, and still in the table.
    done: Vec<Done>,
    /// There may be rows that were not read yet.
    look: bool,
    /// When the next delayed row is due.
    next_due: Option<Timestamp>,
    /// When the leases were last extended; none if they are to be looked at now.
    leases_seen: Option<Instant>,
    /// When Kafka last acknowledged something, or nothing was on its way.
    progress: Instant,
    /// When the depth was last counted.
    measured: Option<Instant>,
}

impl Work<'_> {
    fn new() -> Self {
        Work {
            lanes: Lanes::default(),
            sending: FuturesUnordered::new(),
            done: Vec::new(),
            look: true,
            next_due: None,
            leases_seen: None,
            progress: Instant::now(),
            measured: None,
        }
    }

    fn leases_due(&self) -> bool {
        self.until_leases().is_zero()
    }

    fn until_leases(&self) -> Duration {
        self.leases_seen.map_or(Duration::ZERO, |seen| LOOK_AT_LEASES.saturating_sub(seen.elapsed()))
    }
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(duration) => {}
    }
}
