//! What a handler depends on, and whether it is away; what follows from a failure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Generation, Lane, Next, Partition, Scheduler, Start, Ticket, Verdict,
    partition::{Assignment, Stage, Waits},
};
use crate::{HandlerError, RetryPolicy};

/// The pause between probes: 100 ms, doubled up to 5 s.
const PROBE: RetryPolicy = RetryPolicy::unlimited().backoff(Duration::from_millis(100), Duration::from_secs(5));

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldLane {
    pub(super) partition: Partition,
    pub(super) lane: Lane,
}

/// The dependency of one handler.
#[derive(Debug, Default)]
pub(super) struct Dependency {
    /// The greatest ticket that succeeded.
    last_success: u64,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Duration,
    /// The last ticket given out when it began: only what started later can show that it is over.
    began_after: u64,
    failures: u32,
    probe_at: Duration,
    /// Whether the pause before the next probe is over.
    due: bool,
    probing: Option<u64>,
    /// Lanes whose head has not failed. They probe first: where one record is the culprit and fails for ever, the
    /// others must not wait for it.
    fresh: VecDeque<HeldLane>,
    /// Lanes whose head has failed, rotating.
    tried: VecDeque<HeldLane>,
}

impl Dependency {
    pub(super) fn is_away(&self) -> bool {
        self.outage.is_some()
    }

    pub(super) fn has_succeeded_since(&self, ticket: u64) -> bool {
        self.last_success > ticket
    }

    pub(super) fn held(&self) -> usize {
        self.outage.as_ref().map_or(0, |outage| outage.fresh.len() + outage.tried.len())
    }

    pub(super) fn hold(&mut self, lane: HeldLane, fresh: bool) {
        if let Some(outage) = &mut self.outage {
            if fresh { outage.fresh.push_back(lane) } else { outage.tried.push_back(lane) }
        }
    }

    /// A lane that was taken to probe and cannot yet: it stays the next one.
    pub(super) fn put_back(&mut self, lane: HeldLane) {
        if let Some(outage) = &mut self.outage {
            outage.fresh.push_front(lane);
        }
    }

    pub(super) fn forget(&mut self, partition: &Partition) {
        if let Some(outage) = &mut self.outage {
            outage.fresh.retain(|held| held.partition != *partition);
            outage.tried.retain(|held| held.partition != *partition);
        }
    }

    /// An attempt met an outage; whether that began an outage.
    pub(super) fn unavailable(&mut self, ticket: u64, last_ticket: u64, now: Duration) -> bool {
        let Some(outage) = &mut self.outage else {
            self.outage = Some(Outage {
                since: now,
                began_after: last_ticket,
                failures: 1,
                probe_at: now + PROBE.pause_after(1, 1.0),
                due: false,
                probing: None,
                fresh: VecDeque::new(),
                tried: VecDeque::new(),
            });
            return true;
        };
        // What had started before the outage only confirms it; a probe's failure makes the next pause longer.
        if ticket > outage.began_after {
            outage.failures = outage.failures.saturating_add(1);
            outage.due = false;
            outage.probe_at = now + PROBE.pause_after(outage.failures, 1.0);
        }
        false
    }

    /// An attempt ended; if it was the probe, the next may follow: at once after a success that proves nothing (a
    /// duplicate), after the same pause otherwise.
    pub(super) fn probe_ended(&mut self, ticket: u64, succeeded: bool, now: Duration) {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.probing == Some(ticket)) else { return };
        outage.probing = None;
        outage.due = succeeded;
        outage.probe_at = if succeeded { now } else { now + PROBE.pause_after(outage.failures, 1.0) };
    }

    /// An attempt succeeded in a way that shows the dependency works. If that ends an outage: how long it was, and the
    /// lanes that were held.
    pub(super) fn succeeded(&mut self, ticket: u64, now: Duration) -> Option<(Duration, Vec<HeldLane>)> {
        self.last_success = self.last_success.max(ticket);
        let outage = self.outage.take_if(|outage| ticket > outage.began_after)?;
        let held = outage.tried.into_iter().chain(outage.fresh).collect();
        Some((now.saturating_sub(outage.since), held))
    }

    /// Whether a probe is due.
    pub(super) fn advance(&mut self, now: Duration) -> bool {
        let Some(outage) = &mut self.outage else { return false };
        outage.due |= outage.probing.is_none() && outage.probe_at <= now;
        outage.due
    }

    /// When the next probe's pause ends, if somebody waits for that.
    pub(super) fn next_probe(&self) -> Option<Duration> {
        let outage = self.outage.as_ref()?;
        let waiting = !outage.due && outage.probing.is_none() && self.held() > 0;
        waiting.then_some(outage.probe_at)
    }

    /// The lane that probes now, if one may.
    pub(super) fn take_probe<T>(&mut self, partitions: &BTreeMap<Partition, Assignment<T>>) -> Option<HeldLane> {
        let outage = self.outage.as_mut().filter(|outage| outage.due && outage.probing.is_none())?;
        let may_start = |held: &HeldLane| partitions.get(&held.partition).is_some_and(|it| !it.stopped);
        take_first(&mut outage.fresh, may_start).or_else(|| take_first(&mut outage.tried, may_start))
    }

    pub(super) fn probing(&mut self, ticket: u64) {
        if let Some(outage) = &mut self.outage {
            outage.probing = Some(ticket);
            outage.due = false;
        }
    }
}

impl<T: Clone> Scheduler<T> {
    pub(super) fn next_probe(&mut self) -> Option<Next<T>> {
        let (handler, HeldLane { partition, lane }) = self
            .dependencies
            .iter_mut()
            .find_map(|(handler, dependency)| Some((*handler, dependency.take_probe(&self.partitions)?)))?;
        let alone = self.waits_to_be_alone(&partition, &lane);
        let generation = self.partitions.get(&partition)?.generation;
        if alone {
            self.dependencies.get_mut(&handler)?.put_back(HeldLane { partition, lane });
            return Some(Next::Alone);
        }
        let start = self.start(None, partition, generation, lane);
        if let Some(dependency) = self.dependencies.get_mut(&handler) {
            dependency.probing(start.ticket.0);
        }
        Some(Next::Probe(start))
    }

    /// Holds the ready lanes whose dependency is away, so that they are among those that may probe.
    pub(super) fn hold_ready(&mut self) {
        for (partition, assignment) in self.partitions.iter_mut().filter(|(_, assignment)| !assignment.held) {
            let Assignment { ready, lanes, .. } = assignment;
            ready.retain(|lane| {
                let Some(state) = lanes.get_mut(lane) else { return false };
                let Some(head) = state.queue.front().filter(|head| matches!(head.stage, Stage::Handle)) else {
                    return true;
                };
                // A lane that waits for its key's old attempt finds that out at its turn.
                let away = self.dependencies.get_mut(&head.handler).filter(|it| it.is_away());
                let Some(dependency) = away else { return true };
                if self.predecessors.contains_key(&(partition.clone(), lane.clone())) {
                    return true;
                }
                let held = HeldLane { partition: partition.clone(), lane: lane.clone() };
                dependency.hold(held, head.is_untried());
                state.waits = Waits::Dependency;
                false
            });
        }
    }

    pub(super) fn start_or_hold(
        &mut self,
        partition: Partition,
        generation: Generation,
        lane: Lane,
    ) -> Option<Start<T>> {
        if self.has_predecessor(&partition, &lane) {
            // An older generation's attempt at this key has not ended yet; its end wakes the lane.
            self.lane(&partition, &lane).waits = Waits::Predecessor;
            return None;
        }
        let head = self.head(&partition, &lane);
        let (handler, fresh) = (head.handler, head.is_untried());
        if matches!(head.stage, Stage::Handle)
            && let Some(dependency) = self.dependencies.get_mut(&handler)
            && dependency.is_away()
        {
            dependency.hold(HeldLane { partition: partition.clone(), lane: lane.clone() }, fresh);
            self.lane(&partition, &lane).waits = Waits::Dependency;
            return None;
        }
        Some(self.start(None, partition, generation, lane))
    }

    /// An attempt succeeded in a way that shows the dependency works; how long the outage was that this ends.
    pub(super) fn passed(
        &mut self,
        ticket: Ticket,
        handler: usize,
        (partition, lane): (&Partition, &Lane),
        now: Duration,
    ) -> Option<Duration> {
        if let Some(breakers) = &mut self.breakers {
            breakers.not_failed(handler, || (partition.clone(), lane.clone()), now);
        }
        let (lasted, held) = self.dependencies.entry(handler).or_default().succeeded(ticket.0, now)?;
        if let Some(breakers) = &mut self.breakers {
            breakers.outage_ended(handler);
        }
        for HeldLane { partition, lane } in held {
            self.make_ready(&partition, lane);
        }
        Some(lasted)
    }

    pub(super) fn failed(
        &mut self,
        ticket: Ticket,
        (partition, generation, lane): (Partition, Generation, Lane),
        error: HandlerError,
        now: Duration,
        random: f64,
    ) -> Verdict {
        let outage = self.is_outage(&partition, &lane, &error, now);
        let rejected = matches!(error, HandlerError::Reject(_));
        let says_unavailable = matches!(error, HandlerError::Unavailable(_));
        let last_ticket = self.last_ticket;
        let head = self.head(&partition, &lane);
        head.last_error = Some(Arc::new(error));
        if outage || says_unavailable {
            head.unavailable_after = Some(last_ticket);
        }
        if outage {
            let handler = head.handler;
            let dependency = self.dependencies.entry(handler).or_default();
            let began = dependency.unavailable(ticket.0, last_ticket, now);
            dependency.hold(HeldLane { partition: partition.clone(), lane: lane.clone() }, false);
            self.lane(&partition, &lane).waits = Waits::Dependency;
            return Verdict::Unavailable { began };
        }
        if rejected || head.retry.is_last(head.attempt) {
            head.stage = Stage::Bury { failures: 0 };
            self.make_ready(&partition, lane);
            return Verdict::Bury;
        }
        let pause = head.retry.pause_after(head.attempt, random);
        head.attempt += 1;
        self.wait(&partition, generation, lane, now + pause);
        Verdict::Retry { pause }
    }

    /// Whether this failure of a lane's head is an outage, by the handler's word or by the breaker's.
    fn is_outage(&mut self, partition: &Partition, lane: &Lane, error: &HandlerError, now: Duration) -> bool {
        let head = self.head(partition, lane);
        let (handler, before) = (head.handler, head.unavailable_after);
        let key = || (partition.clone(), lane.clone());
        match error {
            HandlerError::Unavailable(_) => {
                let dependency = self.dependencies.entry(handler).or_default();
                // Others have passed since this record last said that nothing can: it is this record, not the dependency.
                let alone = before.is_some_and(|before| dependency.has_succeeded_since(before));
                dependency.is_away() || !alone
            }
            HandlerError::Retry(_) => {
                self.breakers.as_mut().is_some_and(|breakers| breakers.failed(handler, key(), now))
            }
            HandlerError::Reject(_) => {
                // The record is at fault, and was looked at: no sign of an outage.
                if let Some(breakers) = &mut self.breakers {
                    breakers.not_failed(handler, key, now);
                }
                false
            }
        }
    }
}

fn take_first(lanes: &mut VecDeque<HeldLane>, wanted: impl Fn(&HeldLane) -> bool) -> Option<HeldLane> {
    let position = lanes.iter().position(wanted)?;
    lanes.remove(position)
}
