//! What a handler depends on, and whether it is away.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Lane, Partition, partition::Assignment};
use crate::RetryPolicy;

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
    /// Lanes whose head has not met the outage itself. They probe first: where one record is the culprit and says
    /// `Unavailable` for ever, the others must not wait for it.
    fresh: VecDeque<HeldLane>,
    /// Lanes whose head answered `Unavailable`, rotating.
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

    /// An attempt answered `Unavailable`; whether that began an outage.
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

fn take_first(lanes: &mut VecDeque<HeldLane>, wanted: impl Fn(&HeldLane) -> bool) -> Option<HeldLane> {
    let position = lanes.iter().position(wanted)?;
    lanes.remove(position)
}
