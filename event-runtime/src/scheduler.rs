//! Decides, and does nothing else: which record may start, what is tried again when, what may be committed, when a
//! partition is paused. No I/O, no clock, no randomness: time (since any fixed start) and random numbers come in.
//!
//! - Records of one key within a partition form a *lane*: only its head runs, and while the head waits for a retry the
//!   rest of the lane waits with it. Records without a key have a lane each.
//! - The *watermark* of a partition is the lowest offset that is not handled yet: all below it may be committed.
//! - Every assignment of a partition is a new *generation*. Results of an older one change nothing, except that a lane
//!   waits for an older generation's attempt at its key to end.
//! - A partition that is given back is *drained*: of what was not begun only *gaps* are, records below one that was, as
//!   long as nothing below them waits. What is handled above a gap cannot be committed and would be handled again.
//! - While a handler's dependency is away ([`HandlerError::Unavailable`](crate::HandlerError::Unavailable)), its records
//!   are held and one at a time probes; see [`outage`](self::Verdict::Unavailable).
//! - Failures of most keys are such an outage as well, whatever the handler says; see [`BreakerLimits`].
//! - A flood of dead letters stops everything for a while; see [`FloodLimits`].
//! - What may have ended the process runs alone; see [`Legacy`].
//! - Records that may share a transaction do so when several are ready; see [`Scheduler::join`].
//!
//! What it leaves out: order across topics.

mod batch;
mod breaker;
mod careful;
mod flood;
mod messages;
mod outage;
mod owned;
mod partition;
mod progress;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::Entry},
    time::Duration,
};

use self::{
    batch::Batching,
    breaker::Breakers,
    flood::FloodGuard,
    outage::Dependency,
    partition::{Assignment, LaneState, Pending},
};
pub use self::{
    breaker::BreakerLimits,
    careful::{CrashedError, Legacy},
    flood::{Flood, FloodLimits},
    messages::{
        Extent, Generation, InHand, Lag, Lane, Limits, Offer, Offered, Outcome, Partition, Stall, Start, State, Task,
        Ticket, Verdict,
    },
    owned::{Owned, OwnedPartition},
};
use crate::{HashMap, RetryPolicy};

/// How a dead-letter write that fails is tried again: for ever, since giving up would lose the record.
const BURY_RETRY: RetryPolicy = RetryPolicy::unlimited();

/// See the module's documentation.
#[derive(Debug)]
pub struct Scheduler<T> {
    limits: Limits,
    partitions: BTreeMap<Partition, Assignment<T>>,
    /// Partitions with ready lanes, in the order of their turns.
    turns: VecDeque<Partition>,
    /// Partitions that are being given back: they are looked through for gaps, and mostly there are none.
    stopped: BTreeSet<Partition>,
    /// When which lane's retry pause ends; the number makes the moments distinct.
    timers: BTreeMap<(Duration, u64), (Partition, Generation, Lane)>,
    timers_made: u64,
    last_ticket: u64,
    running: HashMap<Ticket, Running>,
    /// What counts towards the concurrency: attempts and batches that run.
    in_flight: usize,
    /// By its first attempt, how many attempts of a batch still run.
    batches: HashMap<Ticket, usize>,
    /// Lanes with running attempts of an older generation, and how many.
    predecessors: HashMap<(Partition, Lane), usize>,
    dependencies: HashMap<usize, Dependency>,
    guard: Option<FloodGuard>,
    breakers: Option<Breakers>,
    batching: Option<Batching>,
    /// As of the last [`Scheduler::advance`].
    now: Duration,
}

/// What may start next.
enum Next<T> {
    Probe(Start<T>),
    Lane(Partition, Generation, Lane),
    /// Something that has to run alone: nothing else starts before it, or it would wait for ever.
    Alone,
}

#[derive(Debug)]
struct Running {
    partition: Partition,
    generation: Generation,
    lane: Lane,
    offset: i64,
    handler: usize,
    /// The first attempt of its batch, or itself.
    batch: Ticket,
    careful: bool,
}

impl<T: Clone> Scheduler<T> {
    /// A scheduler without partitions.
    pub fn new(limits: Limits) -> Scheduler<T> {
        Scheduler {
            limits,
            partitions: BTreeMap::new(),
            turns: VecDeque::new(),
            stopped: BTreeSet::new(),
            timers: BTreeMap::new(),
            timers_made: 0,
            last_ticket: 0,
            running: HashMap::default(),
            in_flight: 0,
            batches: HashMap::default(),
            predecessors: HashMap::default(),
            dependencies: HashMap::default(),
            guard: None,
            breakers: None,
            batching: None,
            now: Duration::ZERO,
        }
    }

    /// Stops at a flood of dead letters.
    pub fn guarded(self, limits: FloodLimits) -> Scheduler<T> {
        Scheduler { guard: Some(FloodGuard::new(limits)), ..self }
    }

    /// Takes failures of most keys for an outage.
    pub fn breaking(self, limits: BreakerLimits) -> Scheduler<T> {
        Scheduler { breakers: Some(Breakers::new(limits)), ..self }
    }

    /// A partition is ours from now on.
    pub fn assign(&mut self, partition: Partition, generation: Generation) {
        self.remove(&partition);
        self.partitions.insert(partition, Assignment::new(generation));
    }

    /// Begins to give the partition back: it takes no record in, and starts nothing more but gaps.
    pub fn stop(&mut self, partition: &Partition) {
        if let Some(assignment) = self.partitions.get_mut(partition) {
            assignment.stopped = true;
            self.stopped.insert(partition.clone());
        }
    }

    /// Whether a stopped partition has attempts that run or may start.
    pub fn is_draining(&self, partition: &Partition) -> bool {
        let gap = || self.partitions.get(partition).is_some_and(|assignment| assignment.gap().is_some());
        self.running_for(partition).next().is_some() || (self.guard_allows(0) && gap())
    }

    /// The partition is ours no longer. What may be committed for it, if anything was handled.
    pub fn remove(&mut self, partition: &Partition) -> Option<i64> {
        let removed = self.partitions.remove(partition)?;
        let running = self.running.values();
        for running in running.filter(|it| it.partition == *partition && it.generation == removed.generation) {
            *self.predecessors.entry((partition.clone(), running.lane.clone())).or_default() += 1;
        }
        self.turns.retain(|other| other != partition);
        self.stopped.remove(partition);
        self.timers.retain(|_, (other, ..)| other != partition);
        for dependency in self.dependencies.values_mut() {
            dependency.forget(partition);
        }
        removed.watermark()
    }

    /// The assigned partitions with their generations.
    pub fn assigned(&self) -> impl Iterator<Item = (&Partition, Generation)> {
        self.partitions.iter().map(|(partition, assignment)| (partition, assignment.generation))
    }

    /// The attempts that run for an assigned partition, in its present generation.
    pub fn running_for<'a>(&'a self, partition: &'a Partition) -> impl Iterator<Item = Ticket> + 'a {
        let generation = self.partitions.get(partition).map(|assignment| assignment.generation);
        self.running
            .iter()
            .filter(move |(_, running)| running.partition == *partition && Some(running.generation) == generation)
            .map(|(ticket, _)| *ticket)
    }

    /// How many attempts run, of whichever generation.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many lanes wait for a retry or a dependency.
    pub fn blocked_lanes(&self) -> usize {
        self.timers.len() + self.dependencies.values().map(Dependency::held).sum::<usize>()
    }

    /// Takes a record in.
    pub fn offer(&mut self, partition: &Partition, generation: Generation, offer: Offer<T>) -> Offered {
        let Some(assignment) = self.assignment(partition, generation) else { return Offered::NotAssigned };
        if !assignment.take_offset(offer.offset, offer.written) {
            return Offered::Repeated;
        }
        if let Some(lane) = assignment.queue(offer) {
            self.make_ready(partition, lane);
        }
        Offered::Queued
    }

    /// Takes a record in that needs no handler: it only moves the watermark.
    pub fn skip(&mut self, partition: &Partition, generation: Generation, offset: i64) -> Offered {
        let Some(assignment) = self.assignment(partition, generation) else { return Offered::NotAssigned };
        if !assignment.take_offset(offset, None) {
            return Offered::Repeated;
        }
        assignment.unfinished.finish(offset);
        Offered::Queued
    }

    /// Lets retry pauses and probe pauses end that are over at `now`. Call it before [`Scheduler::start_next`].
    pub fn advance(&mut self, now: Duration) {
        self.now = now;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (partition, _, lane) = entry.remove();
            self.make_ready(&partition, lane);
        }
        let mut probe_due = false;
        for dependency in self.dependencies.values_mut() {
            probe_due |= dependency.advance(now);
        }
        if probe_due {
            self.hold_ready();
        }
        if let Some(guard) = &mut self.guard {
            guard.advance(now);
        }
    }

    /// When [`Scheduler::advance`] has something to do next.
    pub fn next_timer(&self) -> Option<Duration> {
        let retry = self.timers.first_key_value().map(|((at, _), _)| *at);
        let probe = self.dependencies.values().filter_map(Dependency::next_probe).min();
        let cool_down = self.guard.as_ref().and_then(FloodGuard::next_timer);
        [retry, probe, cool_down, self.gathers_until()].into_iter().flatten().min()
    }

    /// The next attempt to run, if one may start now. What else may share its transaction: [`Scheduler::join`].
    pub fn start_next(&mut self) -> Option<Start<T>> {
        let alone = self.runs_alone() || !self.guard_allows(self.running.len());
        if alone || self.in_flight >= self.limits.concurrency {
            return None;
        }
        loop {
            let next = match self.next_probe() {
                Some(next) => next,
                None => self.next_gap().or_else(|| self.next_turn())?,
            };
            match next {
                Next::Probe(start) => return Some(start),
                Next::Lane(partition, generation, lane) => {
                    if let Some(start) = self.start_or_hold(partition, generation, lane) {
                        return Some(start);
                    }
                }
                Next::Alone => return None,
            }
        }
    }

    /// Takes in how an attempt ended. `random` (0 to 1) spreads retry pauses.
    pub fn finish(&mut self, ticket: Ticket, outcome: Outcome, now: Duration, random: f64) -> Verdict {
        let Some(running) = self.running.remove(&ticket) else { return Verdict::Stale };
        let Running { partition, generation, lane, offset, handler, batch, careful: _ } = running;
        if self.is_last_of(batch) {
            self.in_flight -= 1;
        }
        let dependency = self.dependencies.entry(handler).or_default();
        dependency.probe_ended(ticket.0, matches!(outcome, Outcome::Handled { .. }), now);
        if self.partitions.get(&partition).is_none_or(|assignment| assignment.generation != generation) {
            self.predecessor_ended(&partition, lane);
            return Verdict::Stale;
        }
        let state = self.lane(&partition, &lane);
        state.running -= 1;
        let lane_is_free = state.running == 0;
        if let Some(guard) = &mut self.guard {
            match outcome {
                Outcome::Buried => guard.dead_lettered(now),
                Outcome::Handled { .. } => guard.handled(now),
                Outcome::Failed(_) | Outcome::BuryFailed | Outcome::RolledBack => {}
            }
        }
        let outage_ended = match outcome {
            Outcome::Handled { proves_dependency: true } => self.passed(ticket, handler, (&partition, &lane), now),
            _ => None,
        };
        match outcome {
            Outcome::Handled { .. } | Outcome::Buried => {
                let fresh = !matches!(outcome, Outcome::Handled { proves_dependency: false });
                self.complete(&partition, lane, offset, (fresh, lane_is_free));
                Verdict::Handled { outage_ended }
            }
            Outcome::RolledBack => {
                self.lane(&partition, &lane).alone(offset);
                if lane_is_free {
                    self.make_ready(&partition, lane);
                }
                Verdict::Alone
            }
            Outcome::BuryFailed => {
                let pause = self.head(&partition, &lane).bury_failed(random);
                self.wait(&partition, generation, lane, now + pause);
                Verdict::Retry { pause }
            }
            Outcome::Failed(error) => self.failed(ticket, (partition, generation, lane), error, now, random),
        }
    }

    /// What may newly be committed: partition, generation, and the offset to read next.
    pub fn new_watermarks(&mut self) -> Vec<(Partition, Generation, i64)> {
        let moved = self.partitions.iter_mut().filter_map(|(partition, assignment)| {
            let watermark = assignment.new_watermark()?;
            Some((partition.clone(), assignment.generation, watermark))
        });
        moved.collect()
    }

    /// Partitions to pause (`true`) or to resume: paused when its share of the budget is used up, resumed when half of
    /// it is free again, so that the two do not alternate with every record. A flood pauses all.
    pub fn pause_changes(&mut self) -> Vec<(Partition, Generation, bool)> {
        let sharers = self.partitions.len().max(1);
        let records = (self.limits.records / sharers).max(1);
        let bytes = (self.limits.bytes / sharers).max(1);
        let flooded = self.guard.as_ref().is_some_and(FloodGuard::pauses);
        let changed = self.partitions.iter_mut().filter_map(|(partition, assignment)| {
            let paused = assignment.update_pause(records, bytes, flooded)?;
            Some((partition.clone(), assignment.generation, paused))
        });
        changed.collect()
    }

    /// The partitions that are paused now.
    pub fn paused(&self) -> usize {
        self.partitions.values().filter(|assignment| assignment.paused).count()
    }
}

impl<T: Clone> Scheduler<T> {
    /// An assignment that takes records.
    fn assignment(&mut self, partition: &Partition, generation: Generation) -> Option<&mut Assignment<T>> {
        self.partitions
            .get_mut(partition)
            .filter(|assignment| assignment.generation == generation && !assignment.stopped)
    }

    fn make_ready(&mut self, partition: &Partition, lane: Lane) {
        let Some(assignment) = self.partitions.get_mut(partition) else { return };
        let Some(state) = assignment.lanes.get_mut(&lane) else { return };
        state.waits = partition::Waits::Turn;
        assignment.ready.push_back(lane);
        if assignment.ready.len() == 1 && !assignment.held {
            self.turns.push_back(partition.clone());
        }
    }

    fn wait(&mut self, partition: &Partition, generation: Generation, lane: Lane, until: Duration) {
        self.lane(partition, &lane).waits = partition::Waits::Until(until);
        self.timers_made += 1;
        self.timers.insert((until, self.timers_made), (partition.clone(), generation, lane));
    }

    /// Whether an attempt may start beside `running` others, as far as a flood of dead letters is concerned.
    fn guard_allows(&self, running: usize) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.may_start(running))
    }

    fn next_gap(&mut self) -> Option<Next<T>> {
        let (partition, place) = self.stopped.iter().find_map(|partition| {
            let place = self.partitions.get(partition)?.gap()?;
            Some((partition.clone(), place))
        })?;
        self.take_ready(partition, place)
    }

    fn next_turn(&mut self) -> Option<Next<T>> {
        if self.gathers_until().is_some() {
            return None;
        }
        loop {
            let partition = self.turns.pop_front()?;
            let may_start = self.partitions.get(&partition).is_some_and(|it| !it.stopped && !it.ready.is_empty());
            if !may_start {
                continue;
            }
            let next = self.take_ready(partition.clone(), 0);
            match next {
                Some(Next::Alone) => self.turns.push_front(partition),
                _ if self.partitions.get(&partition).is_some_and(|it| !it.ready.is_empty()) => {
                    self.turns.push_back(partition);
                }
                _ => {}
            }
            return next;
        }
    }

    /// The ready lane at this place, if it need not wait to be alone.
    fn take_ready(&mut self, partition: Partition, place: usize) -> Option<Next<T>> {
        let lane = self.partitions.get(&partition)?.ready.get(place)?.clone();
        if self.waits_to_be_alone(&partition, &lane) {
            return Some(Next::Alone);
        }
        let assignment = self.partitions.get_mut(&partition)?;
        assignment.ready.remove(place);
        let generation = assignment.generation;
        Some(Next::Lane(partition, generation, lane))
    }

    /// Starts what is next of a lane: in a `batch` of others, or by itself.
    fn start(&mut self, batch: Option<Ticket>, partition: Partition, generation: Generation, lane: Lane) -> Start<T> {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        if let (None, Some(batching)) = (batch, &mut self.batching) {
            batching.started(self.now);
        }
        match batch {
            None => self.in_flight += 1,
            Some(first) => *self.batches.entry(first).or_insert(1) += 1,
        }
        let batch = batch.unwrap_or(ticket);
        let assignment = self.partitions.get_mut(&partition).expect("lanes are only named while assigned");
        let careful = assignment.is_careful(&lane);
        let next = assignment.begin(&lane);
        let (payload, attempt, task, handler) = (next.payload.clone(), next.attempt, next.task(), next.handler);
        let offset = next.offset;
        self.running.insert(ticket, Running { partition, generation, lane, offset, handler, batch, careful });
        Start { ticket, payload, task, attempt, careful }
    }

    fn complete(&mut self, partition: &Partition, lane: Lane, offset: i64, (fresh, lane_is_free): (bool, bool)) {
        let assignment = self.partitions.get_mut(partition).expect("the caller found it assigned");
        assignment.suspicion.done(offset, fresh);
        if assignment.complete(&lane, offset) && lane_is_free {
            self.make_ready(partition, lane);
        }
    }

    /// Whether an attempt of an older generation at this lane has not ended.
    fn has_predecessor(&self, partition: &Partition, lane: &Lane) -> bool {
        !self.predecessors.is_empty() && self.predecessors.contains_key(&(partition.clone(), lane.clone()))
    }

    /// An attempt of an older generation has ended: the lane that waited for the last of them may go on.
    fn predecessor_ended(&mut self, partition: &Partition, lane: Lane) {
        let Entry::Occupied(mut count) = self.predecessors.entry((partition.clone(), lane.clone())) else { return };
        *count.get_mut() -= 1;
        if *count.get() > 0 {
            return;
        }
        count.remove();
        let waits = self.partitions.get(partition).and_then(|assignment| assignment.lanes.get(&lane));
        if waits.is_some_and(|state| matches!(state.waits, partition::Waits::Predecessor)) {
            self.make_ready(partition, lane);
        }
    }

    /// Counts one running attempt of a batch less; whether it was the last one, as one that is no batch is.
    fn is_last_of(&mut self, batch: Ticket) -> bool {
        let Entry::Occupied(mut left) = self.batches.entry(batch) else { return true };
        *left.get_mut() -= 1;
        let last = *left.get() == 0;
        if last {
            left.remove();
        }
        last
    }

    fn lane(&mut self, partition: &Partition, lane: &Lane) -> &mut LaneState<T> {
        let assignment = self.partitions.get_mut(partition).expect("lanes are only named while assigned");
        assignment.lanes.get_mut(lane).expect("a named lane has a record and is kept until its last one is done")
    }

    fn head(&mut self, partition: &Partition, lane: &Lane) -> &mut Pending<T> {
        self.lane(partition, lane).queue.front_mut().expect("a lane is removed with its last record")
    }
}
