//! One assigned partition: its lanes, its watermark, what it takes in memory.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    BURY_RETRY, CrashedError, Extent, Generation, HashMap, InHand, Lag, Lane, Offer, State, Task, careful::Suspicion,
    window::Window,
};
use crate::{HandlerError, RetryPolicy};

#[derive(Debug)]
pub(super) struct Assignment<T> {
    pub(super) generation: Generation,
    /// Set when the partition is being given back.
    pub(super) stopped: bool,
    /// Until it is known how its earlier owner left it.
    pub(super) held: bool,
    pub(super) suspicion: Suspicion,
    pub(super) paused: bool,
    /// Offsets that came in and are not handled.
    pub(super) unfinished: Window,
    /// Where the partition ends, as far as that is known.
    pub(super) extent: Option<Extent>,
    /// There is no record from the next to come up to here, whatever the offsets say.
    pub(super) empty_up_to: i64,
    /// Since when nothing has come although something should: what was to come next then, and the time.
    behind: Option<(i64, Duration)>,
    pub(super) lanes: HashMap<Lane, LaneState<T>>,
    /// Lanes whose head may start, in the order of their turns.
    pub(super) ready: VecDeque<Lane>,
    /// The highest offset that was begun.
    begun: Option<i64>,
    /// One above the highest offset that came in.
    next_offset: Option<i64>,
    /// The watermark that was last handed out.
    reported: Option<i64>,
    records: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct LaneState<T> {
    /// Never empty: a lane is removed with its last record.
    pub(super) queue: VecDeque<Pending<T>>,
    pub(super) waits: Waits,
    /// How many of its first records have attempts that run: more than one only in a batch.
    pub(super) running: usize,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its turn.
    Turn,
    /// The end of its head's attempt.
    Attempt,
    /// The end of its head's retry pause.
    Until(Duration),
    /// The end of an outage.
    Dependency,
    /// The end of an older generation's attempt at its key.
    Predecessor,
}

#[derive(Debug)]
pub(super) struct Pending<T> {
    pub(super) offset: i64,
    pub(super) bytes: usize,
    pub(super) handler: usize,
    pub(super) retry: RetryPolicy,
    pub(super) payload: T,
    pub(super) attempt: u32,
    pub(super) stage: Stage,
    pub(super) last_error: Option<Arc<HandlerError>>,
    /// The last ticket given out when this record last met an outage.
    pub(super) unavailable_after: Option<u64>,
    /// Whether it may share a transaction, as long as it has not failed.
    pub(super) shares: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Handle,
    Bury { failures: u32 },
}

impl<T: Clone> Assignment<T> {
    pub(super) fn new(generation: Generation) -> Self {
        Assignment {
            generation,
            stopped: false,
            held: false,
            suspicion: Suspicion::default(),
            paused: false,
            unfinished: Window::default(),
            extent: None,
            empty_up_to: 0,
            behind: None,
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            begun: None,
            next_offset: None,
            reported: None,
            records: 0,
            bytes: 0,
        }
    }

    /// Notes that `offset` came in; false when it did before. A seek after a resume can repeat records.
    pub(super) fn take_offset(&mut self, offset: i64, written: Option<Timestamp>) -> bool {
        if self.next_offset.is_some_and(|next| offset < next) {
            return false;
        }
        self.next_offset = Some(offset + 1);
        // Where reading began need not be committed: it follows from what is committed already.
        self.reported.get_or_insert(offset);
        self.unfinished.begin(offset, written);
        true
    }

    /// Queues a record; its lane, when that has become ready.
    pub(super) fn queue(&mut self, offer: Offer<T>) -> Option<Lane> {
        self.records += 1;
        self.bytes += offer.bytes;
        let lane = offer.key.clone().map_or(Lane::Record(offer.offset), Lane::Key);
        let mut pending = Pending::new(offer);
        pending.note_crashes(self.suspicion.crashes(pending.offset));
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.queue.push_back(pending);
            return None;
        }
        let state = LaneState { queue: VecDeque::from([pending]), waits: Waits::Turn, running: 0 };
        self.lanes.insert(lane.clone(), state);
        Some(lane)
    }

    /// Notes that an attempt begins at what is next of a lane, behind those that run in the same batch.
    pub(super) fn begin(&mut self, lane: &Lane) -> &Pending<T> {
        let state = self.lanes.get_mut(lane).expect("a lane that may start has a record");
        state.waits = Waits::Attempt;
        let next = state.queue.get(state.running).expect("a lane is removed with its last record");
        state.running += 1;
        self.begun = self.begun.max(Some(next.offset));
        next
    }

    /// Whether a lane's head has to be attempted alone.
    pub(super) fn is_careful(&self, lane: &Lane) -> bool {
        let head = self.lanes.get(lane).and_then(LaneState::head_offset);
        head.is_some_and(|offset| self.suspicion.covers(offset))
    }

    /// Removes a record of a lane that is done; whether the lane has another.
    pub(super) fn complete(&mut self, lane: &Lane, offset: i64) -> bool {
        let Some(state) = self.lanes.get_mut(lane) else { return false };
        if let Some(done) = state.place(offset).and_then(|place| state.queue.remove(place)) {
            self.unfinished.finish(done.offset);
            self.records -= 1;
            self.bytes -= done.bytes;
        }
        let more = !state.queue.is_empty();
        if !more {
            self.lanes.remove(lane);
        }
        more
    }

    /// The offset to read next after a restart: everything below it is handled.
    pub(super) fn watermark(&self) -> Option<i64> {
        self.unfinished.first().map(|(offset, _)| offset).or(self.next_offset)
    }

    /// The watermark, or where reading begins.
    pub(super) fn position(&self) -> Option<i64> {
        self.watermark().or(self.extent.map(|extent| extent.start))
    }

    pub(super) fn next_to_come(&self) -> Option<i64> {
        self.next_offset.or(self.extent.map(|extent| extent.start))
    }

    /// The position, if the record there has not come: then nothing of the partition is in hand.
    fn unread(&self) -> Option<i64> {
        let end = self.extent?.end;
        self.position().filter(|position| self.unfinished.first().is_none() && end > (*position).max(self.empty_up_to))
    }

    /// The offset that is to come next, if nothing has come there for `patience` although something should. What is in
    /// hand meanwhile is no excuse: one record may wait for its retry for longer than that, and blind is blind.
    pub(super) fn stalled_at(&mut self, now: Duration, patience: Duration) -> Option<i64> {
        let reads = !self.paused && !self.stopped;
        let position = self.next_to_come().filter(|position| {
            reads && self.extent.is_some_and(|extent| extent.end > (*position).max(self.empty_up_to))
        });
        self.behind = position.map(|position| {
            let since = self.behind.filter(|(before, _)| *before == position).map_or(now, |(_, since)| since);
            (position, since)
        });
        self.behind.filter(|(_, since)| now.saturating_sub(*since) >= patience).map(|(position, _)| position)
    }

    pub(super) fn lag(&self) -> Lag {
        let records = self.extent.zip(self.position()).map(|(extent, position)| (extent.end - position).max(0));
        let oldest = self.unfinished.first().and_then(|(_, written)| written);
        Lag { records, oldest, unread: self.unread() }
    }

    /// The lowest gap, if the partition has one: the place in `ready` of the lane whose head is below a record that was
    /// begun, and above none that waits.
    pub(super) fn gap(&self) -> Option<usize> {
        let begun = self.begun?;
        let waiting = self.lanes.values().filter(|state| !matches!(state.waits, Waits::Turn | Waits::Attempt));
        let end = waiting.filter_map(LaneState::head_offset).fold(begun, i64::min);
        let heads = self.ready.iter().enumerate().filter_map(|(place, lane)| {
            let offset = self.lanes.get(lane)?.head_offset()?;
            (offset < end).then_some((offset, place))
        });
        heads.min().map(|(_, place)| place)
    }

    /// The watermark, if it has moved since this was last asked.
    pub(super) fn new_watermark(&mut self) -> Option<i64> {
        let watermark = self.watermark()?;
        let moved = self.reported.is_none_or(|reported| reported < watermark);
        if !moved {
            return None;
        }
        self.reported = Some(watermark);
        Some(watermark)
    }

    /// Whether to pause (`true`) or resume, if that changes now.
    pub(super) fn update_pause(&mut self, records: usize, bytes: usize, flooded: bool) -> Option<bool> {
        let full = flooded || self.records >= records || self.bytes >= bytes;
        let roomy = !flooded && self.records <= records / 2 && self.bytes <= bytes / 2;
        let paused = if self.paused { !roomy } else { full };
        (paused != self.paused).then(|| {
            self.paused = paused;
            paused
        })
    }
}

impl<T> LaneState<T> {
    pub(super) fn head_offset(&self) -> Option<i64> {
        self.queue.front().map(|head| head.offset)
    }

    /// The record at `offset` shares no transaction any more.
    pub(super) fn alone(&mut self, offset: i64) {
        if let Some(pending) = self.place(offset).and_then(|place| self.queue.get_mut(place)) {
            pending.shares = false;
        }
    }

    /// Where in the queue the record at `offset` stands: offsets ascend.
    fn place(&self, offset: i64) -> Option<usize> {
        self.queue.binary_search_by_key(&offset, |pending| pending.offset).ok()
    }
}

impl<T: Clone> LaneState<T> {
    /// Its records.
    pub(super) fn in_hand(&self) -> impl Iterator<Item = InHand<T>> {
        let head = match self.waits {
            Waits::Turn | Waits::Predecessor => State::Queued,
            Waits::Attempt => State::Running,
            Waits::Until(until) => State::Waiting(until),
            Waits::Dependency => State::Paused,
        };
        self.queue.iter().enumerate().map(move |(position, pending)| InHand {
            payload: pending.payload.clone(),
            attempt: pending.attempt,
            state: if position < self.running.max(1) { head } else { State::Queued },
            last_error: pending.last_error.clone(),
        })
    }
}

impl<T> Pending<T> {
    fn new(offer: Offer<T>) -> Self {
        Pending {
            offset: offer.offset,
            bytes: offer.bytes,
            handler: offer.handler,
            retry: offer.retry,
            payload: offer.payload,
            attempt: 1,
            stage: Stage::Handle,
            last_error: None,
            unavailable_after: None,
            shares: offer.shares,
        }
    }

    /// Each death is an attempt that failed; after the last, the handler is asked no more.
    pub(super) fn note_crashes(&mut self, crashes: u32) {
        if crashes == 0 {
            return;
        }
        if self.retry.gives_up_after_crashes(crashes) {
            self.attempt = crashes;
            self.stage = Stage::Bury { failures: 0 };
            let untold = self.retry.gives_up_after_crashes(crashes - 1);
            self.last_error = Some(Arc::new(HandlerError::reject(CrashedError { crashes, untold })));
        } else {
            self.attempt = crashes + 1;
        }
    }

    /// Whether it has not failed yet, in whichever way.
    pub(super) fn is_untried(&self) -> bool {
        self.last_error.is_none()
    }

    /// Whether it may share a transaction: what has failed once never does, in whichever way.
    pub(super) fn may_share(&self) -> bool {
        self.shares && self.attempt == 1 && self.is_untried()
    }

    pub(super) fn task(&self) -> Task {
        match (self.stage, &self.last_error) {
            (Stage::Bury { .. }, Some(error)) => Task::Bury(error.clone()),
            _ => Task::Handle { last_attempt: self.retry.is_last(self.attempt) },
        }
    }

    /// Counts a failed dead-letter write; the pause before the next one.
    pub(super) fn bury_failed(&mut self, random: f64) -> Duration {
        let failures = match self.stage {
            Stage::Bury { failures } => failures + 1,
            Stage::Handle => 1,
        };
        self.stage = Stage::Bury { failures };
        BURY_RETRY.pause_after(failures, random)
    }
}
