//! The dispatcher: a task that owns the scheduler, starts what may start, and passes news between scheduler, attempts
//! and poll thread. It never waits for the poll thread, which may be waiting for it inside a revoke.

#[cfg(test)]
mod tests;

use std::{
    iter, mem,
    sync::{Arc, atomic::Ordering, mpsc::SyncSender},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::Instrument;

use super::{
    attempt::{Runner, panic_message},
    batch::{BatchEnded, Member},
    chunk::{ChunkEnded, ChunkSize, Polled, Running, run_chunk, run_one},
    commands::Commands,
    custody::{Custody, Taken, beside},
    inspect::InFlight,
    metrics::RecordLabels,
    progress::Progress,
    rebalance::{Incoming, Membership},
    router::{Job, Route, Router},
    watchdog::Watchdog,
};
use crate::{
    HandlerError, HashMap, Record,
    scheduler::{Generation, Offer, Offered, Outcome, Partition, Scheduler, Start, Task, Ticket},
};

/// How often the consumer looks how far it is.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer to a revoke waits, beyond its drain, until the database knows that the partitions are given back.
/// Less than the poll thread's patience for the answer.
const GIVE_BACK_PATIENCE: Duration = Duration::from_millis(500);

/// How long the end of a consumer waits for the attempts it has cut off: those that wait for something end at once.
const CUT_OFF_PATIENCE: Duration = Duration::from_millis(500);

/// What the owner of the consumer asks for.
pub(super) enum Control {
    Inspect { key: Vec<u8>, answer: oneshot::Sender<Vec<InFlight>> },
    Shutdown { deadline: Instant },
}

pub(super) struct Dispatcher {
    pub(super) router: Router,
    pub(super) runner: Arc<Runner>,
    pub(super) commands: Arc<Commands>,
    pub(super) scheduler: Scheduler<Arc<Job>>,
    pub(super) progress: Progress,
    pub(super) watchdog: Watchdog,
    pub(super) membership: Arc<Membership>,
    pub(super) custody: Custody,
    pub(super) work: Work,
}

/// What runs, and what is waited for.
pub(super) struct Work {
    started: Instant,
    attempts: JoinSet<Ended>,
    /// Those of a batch or a chunk in its order.
    tickets: HashMap<task::Id, Vec<Ticket>>,
    chunk_size: ChunkSize,
    pub(super) running: HashMap<Ticket, RunningAttempt>,
    revoke: Option<Revoke>,
    /// Set by a shutdown: when to stop waiting for attempts.
    closing: Option<Instant>,
}

pub(super) struct RunningAttempt {
    pub(super) job: Arc<Job>,
    pub(super) attempt: u32,
    abort: AbortHandle,
    /// Its partition is no longer ours.
    cancelled: bool,
}

/// How a task ended.
enum Ended {
    One(Outcome),
    /// What it took, if it answered at once.
    Single(Outcome, Option<Duration>),
    Chunk(ChunkEnded),
    Batch(BatchEnded),
}

/// A revoke that waits for its partitions' attempts, and then for the database to know that they are given back.
struct Revoke {
    partitions: Vec<Partition>,
    deadline: Instant,
    /// What to commit, once nothing is in hand any more.
    drained: Option<Vec<(Partition, i64)>>,
    answer: SyncSender<Vec<(Partition, i64)>>,
}

impl Work {
    pub(super) fn new() -> Work {
        Work {
            started: Instant::now(),
            attempts: JoinSet::new(),
            tickets: HashMap::default(),
            chunk_size: ChunkSize::new(),
            running: HashMap::default(),
            revoke: None,
            closing: None,
        }
    }
}

impl Dispatcher {
    /// Runs until a shutdown has drained, or the poll thread is gone.
    pub(super) async fn run(mut self, mut incoming: mpsc::Receiver<Incoming>, mut control: mpsc::Receiver<Control>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_attempts();
            self.answer_revoke();
            self.tell_poll_thread();
            if self.is_drained() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                Some(joined) = self.work.attempts.join_next_with_id() => {
                    self.ended(joined);
                    // What follows is done once for all that have ended by now.
                    while let Some(joined) = self.work.attempts.try_join_next_with_id() {
                        self.ended(joined);
                    }
                }
                news = incoming.recv() => match news {
                    Some(news) => self.take_in(news),
                    None => break,
                },
                request = control.recv(), if self.work.closing.is_none() => match request {
                    Some(Control::Inspect { key, answer }) => {
                        // Whoever asked may have gone.
                        answer.send(self.inspect(&key)).ok();
                    }
                    Some(Control::Shutdown { deadline }) => self.close(deadline),
                    // The consumer was dropped without a shutdown.
                    None => self.close(Instant::now()),
                },
                taken = self.custody.next(self.runner.clock.now()) => self.taken(taken),
                _ = looks.tick() => self.look().await,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // One that blocks its thread may never come back: the group is left without it.
        if timeout(CUT_OFF_PATIENCE, self.work.attempts.shutdown()).await.is_err() {
            let attempts = self.work.attempts.len();
            tracing::warn!(group = self.router.group, attempts, "left behind: attempts that block their threads");
        }
        self.tell_poll_thread();
        self.custody.close().await;
        self.progress.forget_all();
        self.commands.close();
    }

    pub(super) fn now(&self) -> Duration {
        self.work.started.elapsed()
    }

    fn take_in(&mut self, news: Incoming) {
        match news {
            Incoming::Records(records) => {
                for (partition, generation, record) in records {
                    self.offer(&partition, generation, record);
                }
            }
            Incoming::Assigned(partitions, generation) => {
                self.drop_open_revoke();
                for partition in &partitions {
                    match self.custody.holds() {
                        true => self.scheduler.assign_held(partition.clone(), generation),
                        false => self.scheduler.assign(partition.clone(), generation),
                    }
                    if self.work.closing.is_some() {
                        self.scheduler.stop(partition);
                    }
                }
                self.custody.take(partitions, generation);
            }
            Incoming::Revoked(partitions, within, answer) => {
                for partition in &partitions {
                    self.scheduler.stop(partition);
                }
                self.drop_open_revoke();
                let deadline = Instant::now() + within;
                self.work.revoke = Some(Revoke { partitions, deadline, drained: None, answer });
            }
            Incoming::Lost(partitions) => {
                self.remove(partitions);
            }
        }
    }

    fn offer(&mut self, partition: &Partition, generation: Generation, record: Record) {
        let offset = record.origin.offset;
        match self.router.route(record, &self.runner.metrics) {
            Route::Job { job, handler, retry, shares } => {
                let key = job.record.key.as_deref().map(Arc::from);
                let bytes = job.record.size();
                let written = job.record.timestamp;
                let offer = Offer { offset, key, bytes, written, handler, retry, shares, payload: job };
                let offered = self.scheduler.offer(partition, generation, offer);
                if offered != Offered::Queued {
                    let labels = RecordLabels { group: self.router.group, topic: partition.topic.to_string() };
                    self.runner.metrics.skipped.get_or_create(&labels).inc();
                    // It is in hand already, or whoever has the partition now reads it.
                    tracing::debug!(group = self.router.group, %partition, offset, ?offered, "not taken in");
                }
            }
            Route::Skip { record, why } => {
                self.scheduler.skip(partition, generation, offset);
                let labels = RecordLabels { group: self.router.group, topic: record.origin.topic.to_string() };
                self.runner.metrics.skipped.get_or_create(&labels).inc();
                let text = |name| record.header(name).map(String::from_utf8_lossy).unwrap_or_default();
                let (event, event_id) = (text(shared_events::header::TYPE), text(shared_events::header::ID));
                tracing::debug!(group = self.router.group, %event, %event_id, origin = %record.origin, why, "skipped");
            }
        }
    }

    fn start_attempts(&mut self) {
        let now = self.now();
        self.scheduler.advance(now);
        let mut chunk = Vec::new();
        while let Some(first) = self.scheduler.start_next() {
            let joined = self.scheduler.join(first.ticket);
            if !joined.is_empty() {
                self.start_batch(iter::once(first).chain(joined).collect());
            } else if first.careful {
                self.start_alone(first);
            } else {
                chunk.push(first);
                if chunk.len() >= self.work.chunk_size.get() {
                    self.start_chunk(mem::take(&mut chunk));
                }
            }
        }
        self.start_chunk(chunk);
    }

    fn start_chunk(&mut self, starts: Vec<Start<Arc<Job>>>) {
        let run =
            |start: &Start<Arc<Job>>| self.runner.clone().run(start.payload.clone(), start.task.clone(), start.attempt);
        match starts.as_slice() {
            [] => {}
            [start] => {
                let attempt = run(start);
                let single = async {
                    let (outcome, at_once) = beside(run_one(attempt)).await;
                    Ended::Single(outcome, at_once)
                };
                self.spawn(single, starts);
            }
            several => {
                let attempts = several.iter().map(run).collect();
                self.spawn(async { Ended::Chunk(beside(run_chunk(attempts)).await) }, starts);
            }
        }
    }

    /// An attempt that was begun in a chunk, and waits, goes on in a task of its own.
    fn go_on(&mut self, ticket: Ticket, attempt: Running) {
        let Some(running) = self.work.running.get_mut(&ticket).filter(|running| !running.cancelled) else {
            return self.finish(ticket, cut_off());
        };
        let run = async { Ended::One(beside(attempt).await) };
        running.abort = self.work.attempts.spawn(run.in_current_span());
        self.work.tickets.insert(running.abort.id(), vec![ticket]);
    }

    fn start_alone(&mut self, start: Start<Arc<Job>>) {
        let (job, task) = (start.payload.clone(), start.task.clone());
        let run = self.custody.alone(self.runner.clone(), job, task, start.attempt);
        self.spawn(async { Ended::One(run.await) }, vec![start]);
    }

    fn start_batch(&mut self, starts: Vec<Start<Arc<Job>>>) {
        let member = |start: &Start<Arc<Job>>| Member {
            job: start.payload.clone(),
            last_attempt: matches!(start.task, Task::Handle { last_attempt: true }),
        };
        let run = self.runner.clone().run_batch(starts.iter().map(member).collect());
        self.spawn(async { Ended::Batch(beside(run).await) }, starts);
    }

    /// A task that carries out all of these.
    fn spawn(&mut self, run: impl Future<Output = Ended> + Send + 'static, starts: Vec<Start<Arc<Job>>>) {
        let abort = self.work.attempts.spawn(run.in_current_span());
        self.work.tickets.insert(abort.id(), starts.iter().map(|start| start.ticket).collect());
        for Start { ticket, payload: job, attempt, .. } in starts {
            let running = RunningAttempt { job, attempt, abort: abort.clone(), cancelled: false };
            self.work.running.insert(ticket, running);
        }
    }

    fn ended(&mut self, joined: Result<(task::Id, Ended), JoinError>) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(tickets) = self.work.tickets.remove(&id) else { return };
        let outcomes = match joined {
            Ok((_, Ended::One(outcome))) => vec![outcome],
            Ok((_, Ended::Single(outcome, at_once))) => {
                self.work.chunk_size.ended(1, at_once);
                vec![outcome]
            }
            Ok((_, Ended::Chunk(chunk))) => return self.chunk_ended(tickets, chunk),
            Ok((_, Ended::Batch(BatchEnded { outcomes, took, contended }))) => {
                match took {
                    _ if contended => self.scheduler.batch_contended(tickets[0]),
                    Some(took) => self.scheduler.batch_committed(tickets.len(), took),
                    None => self.scheduler.batch_failed(),
                }
                outcomes
            }
            // One of the partitions of a batch or a chunk may still be ours.
            Err(_) if tickets.len() > 1 => tickets.iter().map(|_| Outcome::RolledBack).collect(),
            Err(error) => vec![error.try_into_panic().map_or_else(
                |_| cut_off(),
                |panic| failed(format!("the attempt panicked: {}", panic_message(&*panic))),
            )],
        };
        for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
            self.finish(ticket, outcome);
        }
    }

    fn chunk_ended(&mut self, tickets: Vec<Ticket>, chunk: ChunkEnded) {
        self.work.chunk_size.ended(tickets.len(), chunk.at_once);
        for (ticket, attempt) in tickets.into_iter().zip(chunk.attempts) {
            match attempt {
                Polled::Ended(outcome) => self.finish(ticket, outcome),
                Polled::Runs(attempt) => self.go_on(ticket, attempt),
            }
        }
    }

    /// While a revoke waits for its answer the poll thread has no other news: it has given up on one that is still open when
    /// some come. Its partitions are gone, and one of them may be back, which the end of that drain must not take away.
    fn drop_open_revoke(&mut self) {
        if let Some(older) = self.work.revoke.take().filter(|older| older.drained.is_none()) {
            self.remove(older.partitions);
        }
    }

    /// Answers a revoke once its partitions have nothing in flight, or their time is up.
    fn answer_revoke(&mut self) {
        let Some(mut revoke) = self.work.revoke.take() else { return };
        let busy = match revoke.drained {
            Some(_) => self.custody.is_busy(),
            None => revoke.partitions.iter().any(|partition| self.scheduler.is_draining(partition)),
        };
        let now = Instant::now();
        if busy && now < revoke.deadline {
            self.work.revoke = Some(revoke);
            return;
        }
        match revoke.drained {
            // The poll thread waits a little longer than the deadline; if it has given up, nothing is committed.
            Some(offsets) => {
                revoke.answer.send(offsets).ok();
            }
            None => {
                revoke.drained = Some(self.remove(std::mem::take(&mut revoke.partitions)));
                revoke.deadline = revoke.deadline.max(now + GIVE_BACK_PATIENCE);
                self.work.revoke = Some(revoke);
                self.answer_revoke();
            }
        }
    }

    /// The partitions are ours no longer. What may be committed for them.
    fn remove(&mut self, partitions: Vec<Partition>) -> Vec<(Partition, i64)> {
        let mut offsets = Vec::new();
        for partition in &partitions {
            self.abort(partition);
            self.progress.forget(partition);
            if let Some(offset) = self.scheduler.remove(partition) {
                offsets.push((partition.clone(), offset));
            }
        }
        self.custody.give_back(partitions);
        offsets
    }

    /// Lets partitions begin whose last owner is known.
    fn taken(&mut self, taken: Option<Taken>) {
        let Some(Taken { partitions, generation, outcome }) = taken else { return };
        let group = self.router.group;
        self.custody.note(group, outcome.as_ref().map(drop));
        match outcome {
            Ok(legacies) => {
                for (partition, legacy) in partitions.into_iter().zip(legacies) {
                    if legacy.is_suspect() {
                        let deaths = legacy.deaths;
                        tracing::warn!(
                            group,
                            %partition,
                            deaths,
                            "its last owners ended without giving it back and got no further: the records they may have had \
                             in hand are handled one at a time"
                        );
                    } else if legacy.deaths > 0 {
                        tracing::info!(group, %partition, "its last owner ended without giving it back");
                    }
                    if let Some(offset) = legacy.culprit {
                        let labels = RecordLabels { group, topic: partition.topic.to_string() };
                        self.runner.metrics.crashes.get_or_create(&labels).inc();
                        let crashes = legacy.crashes.get(&offset);
                        tracing::error!(group, %partition, offset, crashes, "this record has ended the process");
                    }
                    self.scheduler.admit(&partition, generation, legacy);
                }
            }
            Err(_) => {
                let ours = partitions.into_iter().filter(|partition| self.scheduler.is_held(partition, generation));
                self.custody.take_again(ours.collect(), generation);
            }
        }
    }

    fn abort(&mut self, partition: &Partition) {
        for ticket in self.scheduler.running_for(partition) {
            if let Some(RunningAttempt { job, attempt, abort, cancelled }) = self.work.running.get_mut(&ticket) {
                abort.abort();
                *cancelled = true;
                let (event, event_id, key) = (job.event_type(), job.event_id(), job.key());
                let group = self.router.group;
                tracing::warn!(group, event, event_id, key, attempt, "cancelled: its partition was taken away");
            }
        }
    }

    fn close(&mut self, deadline: Instant) {
        let assigned: Vec<_> =
            self.scheduler.assigned().map(|(partition, generation)| (partition.clone(), generation)).collect();
        for (partition, generation) in assigned {
            self.scheduler.stop(&partition);
            self.commands.pause(partition, generation, true);
        }
        self.work.closing = Some(deadline);
    }

    fn is_drained(&self) -> bool {
        let closing =
            self.work.closing.is_some_and(|deadline| self.work.attempts.is_empty() || Instant::now() >= deadline);
        closing && self.work.revoke.is_none()
    }

    fn tell_poll_thread(&mut self) {
        for (partition, generation, offset) in self.scheduler.new_watermarks() {
            self.custody.got_to(&partition, offset);
            self.commands.commit(partition, generation, offset);
        }
        if self.work.closing.is_none() {
            for (partition, generation, pause) in self.scheduler.pause_changes() {
                tracing::debug!(group = self.router.group, %partition, pause, "budget");
                self.commands.pause(partition, generation, pause);
            }
        }
        self.progress.note_flood(self.scheduler.flood());
        let gauges = &self.runner.gauges;
        gauges.in_flight.set(self.scheduler.running() as i64);
        gauges.blocked_keys.set(self.scheduler.blocked_lanes() as i64);
        gauges.paused_partitions.set(self.scheduler.paused() as i64);
        gauges.held_partitions.set(self.scheduler.held() as i64);
        gauges.careful_partitions.set(self.scheduler.careful() as i64);
        gauges.assigned_partitions.set(self.scheduler.assigned().count() as i64);
    }

    async fn look(&mut self) {
        self.progress.show(&mut self.scheduler, self.runner.clock.now());
        let assigned = self.membership.assigned.load(Ordering::Relaxed);
        self.watchdog.look(&mut self.scheduler, self.work.started.elapsed(), assigned).await;
    }

    fn next_wake(&self) -> Option<Instant> {
        let timer = self.scheduler.next_timer().map(|at| self.work.started + at);
        let revoke = self.work.revoke.as_ref().map(|revoke| revoke.deadline);
        [timer, revoke, self.work.closing].into_iter().flatten().min()
    }

    fn inspect(&self, key: &[u8]) -> Vec<InFlight> {
        let (now, wall) = (self.now(), self.runner.clock.now());
        let in_hand = self.scheduler.inspect(key).into_iter();
        in_hand.map(|it| InFlight::new(self.router.group, &it, now, wall)).collect()
    }
}

/// The end of an attempt whose partition is no longer ours: nobody will count this.
fn cut_off() -> Outcome {
    failed("the attempt was cancelled".to_owned())
}

fn failed(why: String) -> Outcome {
    Outcome::Failed(HandlerError::retry(why))
}
