//! Which records share a transaction, and how many.
//!
//! A batch is what is ready when a transaction may start: nothing waits for it to fill up. Its size follows what batches
//! take: it grows while they stay under [`TARGET`], so that neither locks nor a drain last long, and shrinks when they do
//! not, or fail.
//!
//! While the consumer is idle, a record starts at once. While a transaction runs, what comes in waits for its end, but no
//! longer than [`TARGET`] after that start, and not at all once there is enough for a full batch: a steady flow then
//! takes few transactions, and a backlog as many full ones side by side as the limits allow.
//!
//! Handlers that change rows which others change too (the stock of a product) can make transactions of several records
//! wait for each other in a ring, which PostgreSQL takes a second to notice. Where that happens, one transaction runs at a
//! time for a while, and if it happens all the same, because of another process, each record has its own.

use std::time::Duration;

use super::{
    Lane, Partition, Scheduler, Start, Ticket,
    partition::{Assignment, Pending},
};

/// What a transaction should take at most.
const TARGET: Duration = Duration::from_millis(20);
/// The size to begin with; a handler may be slow.
const FIRST_SIZE: usize = 2;
/// After so many transactions of single records it is tried again whether two may share one.
const SINGLES: usize = 50;

/// While one transaction runs at a time, what is ready waits for it so long at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long batches do with less after they met contention, doubled each time it comes back.
const RELIEF: Duration = Duration::from_secs(10);
const LONGEST_RELIEF: Duration = Duration::from_secs(600);

/// How large batches are.
#[derive(Debug)]
pub(super) struct Batching {
    most: usize,
    /// Whether records wait for a transaction that runs: only where nothing else runs beside transactions.
    gathers: bool,
    size: usize,
    singles: usize,
    started: Duration,
    contention: Option<Contention>,
}

/// Transactions have waited for each other in a ring.
#[derive(Debug)]
struct Contention {
    /// What began up to this ticket says nothing about the relief.
    known_after: u64,
    /// Whether it came back with one transaction at a time.
    elsewhere: bool,
    relief: Duration,
    until: Duration,
}

impl Batching {
    /// How many records a transaction may have held that nobody knows the size of.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    fn new(most: usize, gathers: bool) -> Batching {
        Batching { most, gathers, size: FIRST_SIZE.min(most), singles: 0, started: Duration::ZERO, contention: None }
    }

    /// A transaction starts.
    pub(super) fn started(&mut self, now: Duration) {
        self.started = now;
        self.singles += 1;
        if self.size == 1 && self.singles >= SINGLES {
            self.size = FIRST_SIZE.min(self.most);
        }
    }

    fn ended(&mut self, records: usize, took: Duration) {
        self.singles = 0;
        if took > TARGET {
            let fits = records.saturating_mul(TARGET.as_millis() as usize) / (took.as_millis().max(1) as usize);
            // One slow answer says little.
            self.size = fits.max(self.size / 2).max(1);
        } else if records >= self.size {
            self.size = (self.size * 2).min(self.most);
        }
    }

    fn failed(&mut self) {
        self.singles = 0;
        self.size = (self.size / 2).max(1);
    }

    fn contended(&mut self, ticket: u64, last_ticket: u64, now: Duration) {
        let before = self.contention.take_if(|it| now < it.until + it.relief);
        self.contention = Some(match before {
            Some(known) if ticket <= known.known_after => known,
            Some(known) => {
                let relief = (known.relief * 2).min(LONGEST_RELIEF);
                let elsewhere = known.elsewhere || now < known.until;
                Contention { known_after: last_ticket, elsewhere, relief, until: now + relief }
            }
            None => Contention { known_after: last_ticket, elsewhere: false, relief: RELIEF, until: now + RELIEF },
        });
    }

    fn contention(&self, now: Duration) -> Option<&Contention> {
        self.contention.as_ref().filter(|contention| now < contention.until)
    }

    /// How many records may share a transaction now.
    fn size(&self, now: Duration) -> usize {
        if self.contention(now).is_some_and(|contention| contention.elsewhere) { 1 } else { self.size }
    }
}

impl<T: Clone> Scheduler<T> {
    /// Lets up to `most` records share a transaction. With `gathers`, what comes in while a transaction runs waits for it a
    /// little; leave that out where other handlers run beside.
    pub fn batching(self, most: usize, gathers: bool) -> Scheduler<T> {
        Scheduler { batching: Some(Batching::new(most, gathers)), ..self }
    }

    /// What may share the transaction of the attempt that was just started, in the order in which to handle it: of each
    /// key the next records in their order. Records that have failed, or whose dependency is away, run alone. All must
    /// end together: [`Outcome::Handled`](super::Outcome::Handled) or [`Outcome::RolledBack`](super::Outcome::RolledBack).
    pub fn join(&mut self, first: Ticket) -> Vec<Start<T>> {
        let mut joined = Vec::new();
        let Some(size) = self.batching.as_ref().map(|batching| batching.size(self.now)) else { return joined };
        if self.flood().is_some() || !self.may_be_joined(first) {
            return joined;
        }
        let (partition, lane) = {
            let running = &self.running[&first];
            (running.partition.clone(), running.lane.clone())
        };
        self.join_lane(first, &partition, &lane, size, &mut joined);
        // Round after round one lane of each partition, until none has another that may join.
        let mut refused = 0;
        while joined.len() + 1 < size && refused < self.turns.len() {
            let Some(partition) = self.turns.pop_front() else { break };
            match self.next_to_join(&partition) {
                Some(lane) => {
                    refused = 0;
                    if self.partitions.get(&partition).is_some_and(|assignment| !assignment.ready.is_empty()) {
                        self.turns.push_back(partition.clone());
                    }
                    self.join_lane(first, &partition, &lane, size, &mut joined);
                }
                None => {
                    refused += 1;
                    self.turns.push_back(partition);
                }
            }
        }
        joined
    }

    /// A batch of `records` was committed, after this time.
    pub fn batch_committed(&mut self, records: usize, took: Duration) {
        if let Some(batching) = &mut self.batching {
            batching.ended(records, took);
        }
    }

    /// A batch was rolled back.
    pub fn batch_failed(&mut self) {
        if let Some(batching) = &mut self.batching {
            batching.failed();
        }
    }

    /// A batch, by its first attempt, had to be repeated because others had the locks it wanted.
    pub fn batch_contended(&mut self, first: Ticket) {
        if let Some(batching) = &mut self.batching {
            batching.contended(first.0, self.last_ticket, self.now);
        }
    }

    /// Until when what is ready waits for a transaction that runs, if it does.
    pub fn gathers_until(&self) -> Option<Duration> {
        let batching = self.batching.as_ref().filter(|it| it.gathers && it.size(self.now) > 1)?;
        let one_at_a_time = batching.contention(self.now).is_some();
        let until = batching.started + if one_at_a_time { PATIENCE } else { TARGET };
        if self.in_flight == 0 || until <= self.now || self.turns.is_empty() {
            return None;
        }
        if one_at_a_time {
            return Some(until);
        }
        let mut ready = 0;
        for partition in &self.turns {
            ready += self.partitions.get(partition).map_or(0, |assignment| assignment.ready.len());
            if ready >= batching.size {
                return None;
            }
        }
        Some(until)
    }

    fn may_be_joined(&self, first: Ticket) -> bool {
        let Some(running) = self.running.get(&first) else { return false };
        let assignment = self.partitions.get(&running.partition).filter(|it| it.generation == running.generation);
        let Some(assignment) = assignment.filter(|it| !it.stopped) else { return false };
        let head = assignment.lanes.get(&running.lane).and_then(|lane| lane.queue.front());
        head.is_some_and(|head| self.may_share(assignment, head))
    }

    /// What may have ended the process runs alone.
    fn may_share(&self, assignment: &Assignment<T>, pending: &Pending<T>) -> bool {
        let above_suspicion = !assignment.held && !assignment.suspicion.covers(pending.offset);
        above_suspicion
            && pending.may_share()
            && self.dependencies.get(&pending.handler).is_none_or(|dependency| !dependency.is_away())
    }

    /// Takes the partition's next ready lane, if its head may share a transaction.
    fn next_to_join(&mut self, partition: &Partition) -> Option<Lane> {
        let assignment = self.partitions.get(partition).filter(|assignment| !assignment.stopped)?;
        let lane = assignment.ready.front()?;
        let head = assignment.lanes.get(lane)?.queue.front()?;
        // An older generation's attempt at the lane is found at the lane's own turn.
        if !self.may_share(assignment, head) || self.has_predecessor(partition, lane) {
            return None;
        }
        self.partitions.get_mut(partition)?.ready.pop_front()
    }

    /// Starts what is next of a lane, in its order, as long as it may share a transaction.
    fn join_lane(
        &mut self,
        first: Ticket,
        partition: &Partition,
        lane: &Lane,
        size: usize,
        joined: &mut Vec<Start<T>>,
    ) {
        while joined.len() + 1 < size {
            let Some(assignment) = self.partitions.get(partition) else { return };
            let next = assignment.lanes.get(lane).and_then(|lane| lane.queue.get(lane.running));
            if !next.is_some_and(|next| self.may_share(assignment, next)) {
                return;
            }
            let generation = assignment.generation;
            joined.push(self.start(Some(first), partition.clone(), generation, lane.clone()));
        }
    }
}
