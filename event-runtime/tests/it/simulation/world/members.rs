//! One member: what reaches it, and what it begins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use event_runtime::scheduler::{
    FloodLimits, Generation, Lane, Limits, Offer, Offered, Owned, Partition, Scheduler, Ticket,
};
use rand::RngExt;

use super::{
    BREAKER, CONCURRENCY, RETRY, SHARES, World,
    attempts::{Batch, Running},
    commits::{Request, Sent},
    coordinator::Revoke,
    log::Job,
};

/// What every record takes in memory.
const BYTES: usize = 10;

pub(super) struct Member {
    pub(super) group: usize,
    /// Which process it is: one that has died comes back as another.
    pub(super) life: u64,
    limits: Limits,
    /// How large batches may be, and whether what comes in waits for one that runs.
    pub(super) batching: (usize, bool),
    pub(super) scheduler: Scheduler<Rc<Job>>,
    pub(super) generation: Generation,
    /// What the poll thread takes for its own.
    pub(super) owned: Owned,
    /// What the dispatcher has told it to commit, and it has not heard yet.
    pub(super) wishes: BTreeMap<Partition, (Generation, i64)>,
    /// The regular commit that is under way.
    pub(super) sent: Option<Sent>,
    /// What the broker has not answered.
    pub(super) requests: VecDeque<Request>,
    pub(super) revoke: Option<Revoke>,
    /// Partitions of a revoke that the poll thread has given up waiting for, and the dispatcher still drains.
    pub(super) forsaken: Vec<Partition>,
    /// What was taken away from it without its knowledge.
    pub(super) expired: BTreeSet<Partition>,
    /// What the scheduler has.
    pub(super) hands: BTreeMap<Partition, Hand>,
    pub(super) running: BTreeMap<Ticket, Running>,
    pub(super) batches: Vec<Batch>,
    /// Handlers whose outage the scheduler has declared.
    pub(super) declared: BTreeSet<usize>,
    /// Handlers and lanes that have failed since an outage was over.
    pub(super) suspects: HashSet<(usize, Partition, Lane)>,
}

/// What is known of a partition in its present generation.
pub(super) struct Hand {
    pub(super) generation: Generation,
    /// The next offset to read.
    next: i64,
    /// Where it began to.
    start: i64,
    /// Until it is known how its owner before left it.
    pub(super) held: bool,
    pub(super) stopped: bool,
    /// The highest offset that was begun.
    pub(super) begun: Option<i64>,
    /// Taken in, and not done as far as the scheduler was told.
    pub(super) in_hand: BTreeSet<i64>,
    /// What the scheduler was told is done.
    pub(super) told: BTreeSet<i64>,
    /// Failures that count.
    pub(super) failures: HashMap<i64, u32>,
    /// What ran in a batch that was rolled back.
    pub(super) alone: BTreeSet<i64>,
    /// When a record's retry is due.
    pub(super) due: HashMap<i64, Duration>,
    /// What the scheduler was told of deaths.
    pub(super) past: HashMap<i64, u32>,
}

impl Hand {
    pub(super) fn new(generation: Generation, start: i64, held: bool) -> Hand {
        Hand {
            generation,
            next: start,
            start,
            held,
            stopped: false,
            begun: None,
            in_hand: BTreeSet::new(),
            told: BTreeSet::new(),
            failures: HashMap::new(),
            alone: BTreeSet::new(),
            due: HashMap::new(),
            past: HashMap::new(),
        }
    }
}

impl Member {
    /// Whether nothing is under way between it, the broker and the coordinator.
    pub(super) fn is_at_rest(&self) -> bool {
        self.revoke.is_none() && self.expired.is_empty() && self.requests.is_empty() && self.sent.is_none()
    }
}

impl World {
    /// A process that begins.
    pub(super) fn member(&mut self, group: usize) -> Member {
        self.lives += 1;
        let (records, bytes) = (self.random.random_range(2..40), self.random.random_range(2..40) * BYTES);
        let limits = Limits { concurrency: CONCURRENCY, records, bytes };
        let batching = (self.random.random_range(1..8), self.random.random_bool(0.5));
        let scheduler = Scheduler::new(limits).batching(batching.0, batching.1);
        let cool_down = Duration::from_millis(500);
        let flood = FloodLimits { per_minute: 3, percent: 20, at_least: 2, cool_down };
        let scheduler = if self.faults.floods { scheduler.guarded(flood) } else { scheduler };
        let scheduler = if self.faults.misjudged { scheduler.breaking(BREAKER) } else { scheduler };
        Member {
            group,
            life: self.lives,
            limits,
            batching,
            scheduler,
            generation: 0,
            owned: Owned::default(),
            wishes: BTreeMap::new(),
            sent: None,
            requests: VecDeque::new(),
            revoke: None,
            forsaken: Vec::new(),
            expired: BTreeSet::new(),
            hands: BTreeMap::new(),
            running: BTreeMap::new(),
            batches: Vec::new(),
            declared: BTreeSet::new(),
            suspects: HashSet::new(),
        }
    }

    pub(super) fn deliver(&mut self, m: usize) {
        let owned = self.owned(m);
        if !owned.is_empty() {
            let pick = self.random.random_range(0..owned.len());
            self.deliver_from(m, &owned[pick]);
        }
    }

    pub(super) fn deliver_all(&mut self, m: usize) {
        for partition in self.owned(m) {
            self.deliver_from(m, &partition);
        }
    }

    pub(super) fn owned(&mut self, m: usize) -> Vec<Partition> {
        self.members[m].owned.iter_mut().map(|(partition, _)| partition).collect()
    }

    /// Hands over the next few records of a partition, sometimes some of them again, as after a seek.
    fn deliver_from(&mut self, m: usize, partition: &Partition) {
        let (count, again) = (self.random.random_range(1..8), self.random.random_bool(0.1));
        let belated = self.random.random_bool(0.02);
        self.note_pauses(m);
        let member = &mut self.members[m];
        // Inside a revoke nobody polls.
        if member.revoke.is_some() {
            return;
        }
        let sharers = member.hands.len();
        let Some(hand) = member.hands.get_mut(partition) else { return };
        let Some(owned) = member.owned.current(partition, hand.generation) else {
            panic!("the poll thread and the dispatcher disagree about {partition}");
        };
        if owned.paused {
            return;
        }
        let (records, bytes) = (member.limits.records / sharers, member.limits.bytes / sharers);
        assert!(
            hand.in_hand.len() < records.max(1) && hand.in_hand.len() * BYTES < bytes.max(1),
            "I3: {partition} has used up its budget and is not paused"
        );
        let from = if again { hand.start.max(hand.next - 2) } else { hand.next };
        for entry in self.log[partition].iter().filter(|entry| entry.offset >= from).take(count) {
            let offset = entry.offset;
            let passed = member.owned.passed(&partition.topic, partition.number, offset);
            let generation = passed.expect("it is owned").1 - u64::from(belated);
            let offered = if entry.is_for(member.group) {
                let offer = Offer {
                    offset,
                    key: entry.key.clone(),
                    bytes: BYTES,
                    written: None,
                    handler: entry.handler,
                    retry: RETRY,
                    shares: entry.handler == SHARES && entry.replay == 0,
                    payload: Job::of(entry.clone()),
                };
                member.scheduler.offer(partition, generation, offer)
            } else {
                self.counts.add("skipped", 1);
                member.scheduler.skip(partition, generation, offset)
            };
            if belated {
                assert_eq!(offered, Offered::NotAssigned, "records of an older assignment are not taken in");
                continue;
            }
            let new = offset >= hand.next;
            assert_eq!(offered, if new { Offered::Queued } else { Offered::Repeated }, "{partition}@{offset}");
            hand.next = hand.next.max(offset + 1);
            if new && entry.is_for(member.group) {
                hand.in_hand.insert(offset);
            }
        }
        self.note_pauses(m);
    }

    fn note_pauses(&mut self, m: usize) {
        let member = &mut self.members[m];
        for (partition, generation, pause) in member.scheduler.pause_changes() {
            if let Some(owned) = member.owned.current(&partition, generation) {
                owned.paused = pause;
            }
        }
    }

    pub(super) fn start_all(&mut self, m: usize) {
        self.members[m].scheduler.advance(self.now);
        while let Some(start) = self.members[m].scheduler.start_next() {
            self.start_batch(m, start);
        }
        self.check_nothing_waits_in_vain(m);
        self.tell_poll_thread(m);
    }
}
