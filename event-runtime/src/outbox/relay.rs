//! Publishes the rows of an outbox.
//!
//! A relay is a loop over five steps: see which buckets are its own, read their oldest rows, hand to the producer those whose
//! key is free, take what was acknowledged, and remove it in one transaction together with what [`OnPublished`] notes. It
//! never waits for all of what it sent: a partition without a leader holds back its own keys, nobody else's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Metrics, OnPublished,
    bucket::{Bucket, Buckets},
    depth,
    lease::Holder,
    outage::Outage,
    publisher::Publisher,
    row::StoredRow,
    session::Session,
    table::{self, Fate},
    waiting::Waiting,
    wake::{Bell, News, Wake},
    work::Work,
};
use crate::{Clock, Database, error::Chain, producer::Producer};

/// Publishes the rows of one database's outbox. Every instance of a service runs one, and they share out the keys.
pub struct Relay {
    database: Database,
    on_published: Option<Arc<dyn OnPublished>>,
    clock: Clock,
    holder: Holder,
    publisher: Publisher,
    session: Session,
    storage: Outage,
    waiting: Arc<Waiting>,
}

/// How long rows that are on their way may take after the shutdown began.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(5);

impl Relay {
    /// A relay for `service`, whose producer keeps its records' order.
    pub fn new(
        database: Database,
        producer: Producer,
        service: &'static str,
        on_published: Option<Arc<dyn OnPublished>>,
        clock: Clock,
    ) -> Relay {
        let waiting = Arc::<Waiting>::default();
        Relay {
            on_published,
            clock: clock.clone(),
            holder: Holder::new(Uuid::now_v7().to_string()),
            publisher: Publisher::new(producer, service, clock, Arc::clone(&waiting)),
            session: Session::new(database.clone(), service, Arc::clone(&waiting)),
            storage: Outage::of("the database", service, Arc::clone(&waiting)),
            waiting,
            database,
        }
    }

    /// Counts in `metrics`.
    pub fn with_metrics(mut self, metrics: Metrics) -> Relay {
        self.session.timeouts = metrics.timeouts.clone();
        self.publisher.metrics = metrics;
        self
    }

    /// Sets a row aside when its topic has been missing for so long (default: a minute). Brokers that have just started
    /// may not know their topics yet.
    pub fn with_unknown_topic_patience(mut self, unknown_topic_patience: Duration) -> Relay {
        self.publisher.unknown_topic_patience = unknown_topic_patience;
        self
    }

    /// Gives up on what the database has not answered within `database` (default: 10 s, on SQLite 25 s; longer when it is
    /// tried again) and on what Kafka has not acknowledged within `kafka` (default: a minute), and tries again.
    pub fn with_patience(mut self, database: Duration, kafka: Duration) -> Relay {
        self.session = self.session.with_patience(database);
        self.publisher.patience = kafka;
        self
    }

    /// Publishes until `shutdown` is cancelled, then waits for the acknowledgements that are due and lets the other relays
    /// take over at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wake = Wake::new(&self.database, self.holder.name());
        let mut work = Work::new(Instant::now());
        while !shutdown.is_cancelled() {
            match self.step(&mut work, &mut wake, &shutdown).await {
                Ok(()) => {
                    self.session.answered();
                    self.storage.over();
                }
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
        self.waiting.holds(work.lanes.len());
        if work.are_leases_due(Instant::now()) {
            self.look_at_leases(work, wake).await?;
        }
        if work.wants_rows() {
            self.read(work).await?;
            self.fulfil_duties(work, wake).await?;
        }
        if work.wants_rows() {
            if let Some(bell) = wake.rung().now_or_never() {
                self.heard(bell, work, wake);
            }
        } else {
            let nap = work.nap(wake.poll_interval(), self.clock.now(), Instant::now());
            self.wait(work, nap, wake, shutdown).await;
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
        let (before, database) = (share.held(), self.session.database());
        let standing = self.session.within("extending its leases", self.holder.extend(&database, now)).await?;
        share.extended(&standing, began);
        work.leases_seen = Some(began);
        if !standing.free.is_empty() {
            let taken = self.holder.take(&database, standing.free, now);
            share.taken(self.session.within("taking free buckets", taken).await?);
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
            let database = self.session.database();
            self.session.within("giving buckets back", self.holder.release(&database, ready)).await?;
            share.given_back(ready);
            wake.ring_elsewhere(News::Free);
        }
        Ok(())
    }

    /// One relay counts what waits, for all of them.
    async fn measure(&self, work: &mut Work<'_>, held: Buckets, now: Timestamp) {
        let metrics = &self.publisher.metrics;
        if !held.contains(Bucket::FIRST) {
            self.waiting.counted(None);
            return metrics.stand_by();
        }
        if !work.is_count_due(Instant::now()) {
            return;
        }
        let database = self.session.database();
        let counted = self.session.within("counting what waits", depth(&database, now)).await;
        work.counted(counted.is_ok(), Instant::now());
        match counted {
            Ok(depth) => {
                self.waiting.counted(Some(depth.rows));
                metrics.show(&depth);
            }
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
        let (database, in_hand) = (self.session.database(), work.lanes.in_hand());
        let batch = self.session.within("reading the oldest rows", table::read(&database, &open, &in_hand)).await?;
        work.look = batch.is_full();
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
        let database = self.session.database();
        let duties = self.session.within("looking for delayed rows", table::duties(&database)).await?;
        let now = self.clock.now();
        let due = duties.next_due.is_some_and(|due| due <= now);
        let mut held = true;
        if duties.unsorted {
            let sorted = table::sort(&database, &self.holder, fence, now);
            held = self.session.within("sorting rows into buckets", sorted).await?;
        }
        if due {
            let moved = table::move_due(&database, &self.holder, fence, now);
            held = held && self.session.within("moving delayed rows that are due", moved).await?;
        }
        if !held {
            work.leases_seen = None;
        } else if due || duties.unsorted {
            // Rows for anyone, and perhaps more to do.
            work.look = true;
            wake.pass_on(Buckets::all(), open.into_keys().collect());
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
            bell = wake.rung() => self.heard(bell, work, wake),
            () = sleep(nap) => work.look = true,
        }
    }

    fn heard(&self, bell: Bell, work: &mut Work<'_>, wake: &Wake) {
        let open = self.publisher.share.open().into_keys().collect();
        work.heard(bell, open);
        if let Bell::Here(buckets) = bell {
            wake.pass_on(buckets, open);
        }
    }

    /// Sets out the next row of the key before anything else happens: the transaction that removes this one takes a while.
    fn arrived<'a>(&'a self, work: &mut Work<'a>, row: StoredRow, fate: Option<Fate>) {
        let Some(fate) = fate else { return work.lanes.withdraw(&row) };
        if let Some(next) = work.lanes.next(&row.key) {
            work.sending.push(self.publisher.deliver(next).boxed());
        }
        work.arrived(&row, fate, Instant::now());
    }

    fn watch_progress(&self, work: &mut Work<'_>) {
        if work.is_stuck(Instant::now()) {
            self.publisher.kafka.began("no acknowledgement for 3 s");
        }
    }

    /// Removes what arrived.
    async fn settle(&self, work: &mut Work<'_>) -> Result<(), sqlx::Error> {
        let (database, on_published) = (self.session.database(), self.on_published.as_deref());
        let settled = table::settle(&database, &self.holder, on_published, &work.done, self.clock.now());
        if !self.session.within("removing published rows", settled).await? {
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
        // Rows that wait behind one on its way stay in the outbox.
        let acknowledgements = async {
            while let Some((row, fate)) = work.sending.next().await {
                if let Some(fate) = fate {
                    work.arrived(&row, fate, Instant::now());
                }
            }
        };
        // What comes later is published again.
        timeout(LAST_ACKNOWLEDGEMENTS, acknowledgements).await.ok();
        if !work.done.is_empty() {
            self.settle(&mut work).await?;
        }
        let database = self.session.database();
        self.session.within("leaving its buckets to others", self.holder.leave(&database)).await?;
        wake.ring_last(News::Free).await;
        Ok(())
    }
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(duration) => {}
    }
}

#[cfg(test)]
mod tests;
