//! The scheduler, called as the dispatcher calls it where attempts end one at a time; of several that have ended, it makes one
//! turn.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::Duration};

use event_runtime::{
    HandlerError, RetryPolicy,
    scheduler::{BreakerLimits, FloodLimits, Limits, Offer, Offered, Outcome, Partition, Scheduler, Start},
};
use uuid::Uuid;

use super::counted;

const KEYS: u32 = 1000;
/// As many as a consumer has without settings of its own.
const LIMITS: Limits = Limits { concurrency: 32, records: 10_000, bytes: 32 << 20 };
const BATCH: usize = 256;
/// What the poll thread hands over at once at most.
const POLLED: usize = 500;
/// No more are taken in while so many are in hand: enough for lanes to have more than their head.
const IN_HAND: u32 = 2000;
const HANDLER: usize = 1;
const GENERATION: u64 = 1;
/// What a turn takes, by the clock that only exists here.
const TURN: Duration = Duration::from_micros(10);
/// How often a record of the key that fails does so.
const FAILURES: u32 = 9;

/// How records go through the scheduler.
#[derive(Clone, Copy)]
pub struct Flow {
    partitions: i32,
    fails: bool,
    shares: bool,
}

/// What the scheduler hands back of a record: whether it is of the key that fails.
type Payload = Arc<bool>;

impl Flow {
    pub fn of(partitions: i32) -> Flow {
        Flow { partitions, fails: false, shares: false }
    }

    /// Every tenth record is of one key, and fails at first.
    pub fn failing(self) -> Flow {
        Flow { fails: true, ..self }
    }

    /// Records share transactions.
    pub fn sharing(self) -> Flow {
        Flow { shares: true, ..self }
    }

    /// How many were handled: all of them.
    pub fn run(self, records: u32) -> u32 {
        let mut scheduler = Scheduler::new(LIMITS)
            .batching(BATCH, self.shares)
            .guarded(FloodLimits::default())
            .breaking(BreakerLimits::default());
        let topic: Arc<str> = "benchmark.hot-path".into();
        let partitions: Vec<_> =
            (0..self.partitions).map(|number| Partition { topic: topic.clone(), number }).collect();
        for partition in &partitions {
            scheduler.assign(partition.clone(), GENERATION);
        }
        let drive = Drive {
            scheduler,
            incoming: self.offers(records, &partitions),
            running: VecDeque::new(),
            now: Duration::ZERO,
            in_hand: 0,
            handled: 0,
        };
        drive.through(records)
    }

    /// Keys come in turn, each in one partition, so that the same happens in every run.
    fn offers(self, records: u32, partitions: &[Partition]) -> VecDeque<(Partition, Offer<Payload>)> {
        let mut next_offsets = vec![0; partitions.len()];
        let offer = |number: u32| {
            let fails = self.fails && number.is_multiple_of(10);
            let key = if fails { 0 } else { number % KEYS };
            let place = key as usize % partitions.len();
            let offset = next_offsets[place];
            next_offsets[place] += 1;
            let offer = Offer {
                offset,
                key: Some(Uuid::from_u128(key.into()).to_string().into_bytes().into()),
                bytes: 600,
                written: None,
                handler: HANDLER,
                retry: RetryPolicy::unlimited().backoff(Duration::from_millis(1), Duration::from_millis(1)),
                shares: self.shares,
                payload: Arc::new(fails),
            };
            (partitions[place].clone(), offer)
        };
        (0..records).map(offer).collect()
    }
}

struct Drive {
    scheduler: Scheduler<Payload>,
    incoming: VecDeque<(Partition, Offer<Payload>)>,
    /// In the order in which they end: the first attempt, and those that share its transaction.
    running: VecDeque<(Start<Payload>, Vec<Start<Payload>>)>,
    now: Duration,
    in_hand: u32,
    handled: u32,
}

impl Drive {
    fn through(mut self, records: u32) -> u32 {
        counted(&mut || {
            while self.handled < records {
                self.turn();
            }
        });
        self.handled
    }

    fn turn(&mut self) {
        self.take_in();
        self.start();
        black_box(self.scheduler.new_watermarks());
        black_box(self.scheduler.pause_changes());
        self.now += TURN;
        match self.running.pop_front() {
            Some((first, joined)) => self.end(first, joined),
            None => self.now = self.scheduler.next_timer().expect("what is not handled runs or waits").max(self.now),
        }
    }

    fn take_in(&mut self) {
        if self.in_hand >= IN_HAND {
            return;
        }
        for (partition, offer) in self.incoming.drain(..POLLED.min(self.incoming.len())) {
            let offered = self.scheduler.offer(&partition, GENERATION, offer);
            assert_eq!(offered, Offered::Queued);
            self.in_hand += 1;
        }
    }

    fn start(&mut self) {
        self.scheduler.advance(self.now);
        while let Some(first) = self.scheduler.start_next() {
            let joined = self.scheduler.join(first.ticket);
            self.running.push_back((first, joined));
        }
    }

    fn end(&mut self, first: Start<Payload>, joined: Vec<Start<Payload>>) {
        if !joined.is_empty() {
            self.scheduler.batch_committed(1 + joined.len(), TURN);
        }
        for Start { ticket, payload: fails, attempt, .. } in std::iter::once(first).chain(joined) {
            let outcome = match *fails && attempt <= FAILURES {
                true => Outcome::Failed(HandlerError::retry("asked to fail")),
                false => Outcome::Handled { proves_dependency: true },
            };
            let done = matches!(outcome, Outcome::Handled { .. });
            self.scheduler.finish(ticket, outcome, self.now, 0.5);
            self.handled += u32::from(done);
            self.in_hand -= u32::from(done);
        }
    }
}
