//! One schedule: a broker's log, one member of a group, and what really happened, against which every decision of the
//! scheduler is checked.

mod batches;
mod deaths;
mod rebalances;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use event_runtime::{
    HandlerError, RetryPolicy,
    scheduler::{
        BreakerLimits, FloodLimits, Lane, Limits, Offer, Offered, Outcome, Partition, Scheduler, Start, Task, Ticket,
        Verdict,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::deaths::Durable;

#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub failures: bool,
    pub rebalances: bool,
    pub outages: bool,
    /// Outages that handlers take for failures of their records.
    pub misjudged: bool,
    pub floods: bool,
    /// Records that end the process.
    pub deaths: bool,
}

const CONCURRENCY: usize = 4;
/// The handler whose records may share transactions.
const SHARES: usize = 0;
const RETRY: RetryPolicy = RetryPolicy::limited(2).backoff(Duration::from_millis(50), Duration::from_millis(400));

const BREAKER: BreakerLimits =
    BreakerLimits { at_least: 3, percent: 80, window: Duration::from_secs(2), patience: Duration::from_secs(3) };

/// A record of the broker's log: payload of the offers, too.
#[derive(Clone, Debug)]
struct Entry {
    partition: Partition,
    offset: i64,
    key: Option<Arc<[u8]>>,
    handler: usize,
    nature: Nature,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Nature {
    Works,
    FailsTimes(u32),
    AlwaysFails,
    Rejects,
    /// Says `Unavailable` whether or not there is an outage, until the end of the schedule: alone, it cannot be told from
    /// an outage.
    CriesWolf,
    /// Ends the process whenever it is attempted.
    Kills,
}

struct Running {
    entry: Entry,
    attempt: u32,
    bury: bool,
    generation: u64,
    began_in_outage: bool,
    careful: bool,
}

fn scheduler(limits: Limits, faults: Faults, (most, gathers): (usize, bool)) -> Scheduler<Entry> {
    let scheduler = Scheduler::new(limits).batching(most, gathers);
    let cool_down = Duration::from_millis(500);
    let limits = FloodLimits { per_minute: 3, percent: 20, at_least: 2, cool_down };
    let scheduler = if faults.floods { scheduler.guarded(limits) } else { scheduler };
    if faults.misjudged { scheduler.breaking(BREAKER) } else { scheduler }
}

pub struct World {
    faults: Faults,
    random: StdRng,
    now: Duration,
    scheduler: Scheduler<Entry>,
    log: BTreeMap<Partition, Vec<Entry>>,
    committed: BTreeMap<Partition, i64>,
    /// Assigned partitions: generation, next offset to read.
    owned: BTreeMap<Partition, (u64, i64)>,
    generation: u64,
    running: BTreeMap<Ticket, Running>,
    /// What runs, batch by batch.
    batches: Vec<Vec<Ticket>>,
    /// How large they may be, and whether what comes in waits for one that runs.
    batching: (usize, bool),
    /// Offsets whose handling or dead letter really took place.
    done: BTreeMap<Partition, BTreeSet<i64>>,
    /// The highest offset that was begun, in the present generation.
    begun: BTreeMap<Partition, i64>,
    /// What the scheduler was told is done, in the present generation.
    told: BTreeSet<(Partition, i64)>,
    /// Failures that count, in the present generation.
    failures: HashMap<(Partition, i64), u32>,
    /// What ran in a batch that was rolled back, in the present generation.
    alone: BTreeSet<(Partition, i64)>,
    /// When a record's retry is due, in the present generation.
    due: HashMap<(Partition, i64), Duration>,
    /// Handlers whose outage the scheduler has declared.
    declared: BTreeSet<usize>,
    /// Handlers whose dependency really is away.
    away: BTreeSet<usize>,
    /// Handlers and lanes that have failed since an outage was over.
    suspects: HashSet<(usize, Partition, Lane)>,
    durable: Durable,
    /// Partitions whose past is not known yet.
    held: BTreeSet<Partition>,
    /// What the scheduler was told of deaths, in the present generation.
    past: HashMap<(Partition, i64), u32>,
    counts: Counts,
    settling: bool,
}

/// What took place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub starts: u64,
    pub floods: u64,
    /// Outages that no handler had named.
    pub misjudged: u64,
    /// How often the process ended.
    pub deaths: u64,
    /// Of these, by a record that was not known to be at fault afterwards.
    pub unsolved: u64,
    /// How often a partition got further after a death.
    pub outlived: u64,
    /// Transactions that records shared.
    pub shared: u64,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let limits = Limits { concurrency: CONCURRENCY, records: random.random_range(2..40), bytes: 10_000 };
        let batching = (random.random_range(1..8), random.random_bool(0.5));
        let mut world = World {
            faults,
            now: Duration::ZERO,
            scheduler: scheduler(limits, faults, batching),
            log: BTreeMap::new(),
            committed: BTreeMap::new(),
            owned: BTreeMap::new(),
            generation: 0,
            running: BTreeMap::new(),
            batches: Vec::new(),
            batching,
            alone: BTreeSet::new(),
            done: BTreeMap::new(),
            begun: BTreeMap::new(),
            told: BTreeSet::new(),
            failures: HashMap::new(),
            due: HashMap::new(),
            declared: BTreeSet::new(),
            away: BTreeSet::new(),
            suspects: HashSet::new(),
            durable: Durable::default(),
            held: BTreeSet::new(),
            past: HashMap::new(),
            counts: Counts::default(),
            settling: false,
            random,
        };
        world.write_log();
        world
    }

    /// Plays the schedule.
    pub fn run(mut self) -> Counts {
        for _ in 0..self.random.random_range(50..300) {
            self.step();
        }
        self.settle();
        self.check_deaths();
        self.counts
    }

    fn write_log(&mut self) {
        let keys = self.random.random_range(1..6u8);
        for number in 0..self.random.random_range(1..4) {
            let partition = Partition { topic: "t".into(), number };
            let mut offset = self.random.random_range(0..3);
            let mut entries = Vec::new();
            for _ in 0..self.random.random_range(5..40) {
                let key = self.random.random_bool(0.85).then(|| Arc::from([self.random.random_range(0..keys)]));
                let handler = self.random.random_range(0..2);
                let nature = self.nature();
                entries.push(Entry { partition: partition.clone(), offset, key, handler, nature });
                // Gaps, as control records leave them.
                offset += if self.random.random_bool(0.1) { 2 } else { 1 };
            }
            self.log.insert(partition.clone(), entries);
            self.done.insert(partition.clone(), BTreeSet::new());
            self.committed.insert(partition.clone(), 0);
            self.assign(partition);
        }
    }

    fn nature(&mut self) -> Nature {
        if self.faults.outages && self.random.random_bool(0.05) {
            return Nature::CriesWolf;
        }
        if self.faults.deaths && self.random.random_bool(0.05) {
            return Nature::Kills;
        }
        match self.random.random_range(0..20) {
            0..3 if self.faults.failures => Nature::FailsTimes(self.random.random_range(1..3)),
            3 if self.faults.failures => Nature::AlwaysFails,
            4 if self.faults.failures => Nature::Rejects,
            _ => Nature::Works,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..5 if self.faults.deaths => self.admit_one(),
            0..30 => self.deliver(),
            30..70 => self.finish_one(),
            70..85 => self.pass_time(),
            85..88 if self.faults.rebalances => self.revoke(),
            88 if self.faults.rebalances => self.lose(),
            89 if self.faults.rebalances => self.crash(),
            90..94 if self.faults.rebalances => self.reassign(),
            94..97 if self.faults.outages => {
                let handler = self.random.random_range(0..2);
                if !self.away.remove(&handler) {
                    self.away.insert(handler);
                }
            }
            _ => self.commit(),
        }
        self.start_all();
    }

    /// Without further faults, everything must come to its end.
    fn settle(&mut self) {
        self.away.clear();
        self.settling = true;
        self.reassign_all();
        for _ in 0..20_000 {
            self.admit_one();
            self.deliver();
            self.start_all();
            self.finish_one();
            self.start_all();
            self.pass_time();
            self.start_all();
            self.commit();
            let at_end = self.log.iter().all(|(partition, entries)| {
                let last = entries.last().expect("the log has records");
                self.committed[partition] == last.offset + 1
            });
            if at_end {
                return;
            }
        }
        panic!("no end: committed {:?}, {:?}", self.committed, self.scheduler);
    }

    fn assign(&mut self, partition: Partition) {
        self.generation += 1;
        self.begun.remove(&partition);
        self.told.retain(|(other, _)| *other != partition);
        self.failures.retain(|(other, _), _| *other != partition);
        self.alone.retain(|(other, _)| *other != partition);
        self.due.retain(|(other, _), _| *other != partition);
        self.past.retain(|(other, _), _| *other != partition);
        self.owned.insert(partition.clone(), (self.generation, self.committed[&partition]));
        if self.faults.deaths {
            self.held.insert(partition.clone());
            self.scheduler.assign_held(partition, self.generation);
        } else {
            self.scheduler.assign(partition, self.generation);
        }
    }

    /// Hands over the next few records of a partition, sometimes some of them again, as after a seek.
    fn deliver(&mut self) {
        let Some(partition) = self.pick_owned() else { return };
        let (generation, next) = self.owned[&partition];
        let count = self.random.random_range(1..8);
        let back = if self.random.random_bool(0.1) { 2 } else { 0 };
        let from = self.committed[&partition].max(next - back);
        let batch: Vec<_> =
            self.log[&partition].iter().filter(|entry| entry.offset >= from).take(count).cloned().collect();
        for entry in batch {
            let offset = entry.offset;
            let offer = Offer {
                offset,
                key: entry.key.clone(),
                bytes: 10,
                written: None,
                handler: entry.handler,
                retry: RETRY,
                shares: entry.handler == SHARES,
                payload: entry,
            };
            let offered = self.scheduler.offer(&partition, generation, offer);
            let next = &mut self.owned.get_mut(&partition).expect("it is owned").1;
            if offset < *next {
                // The first ones after an assignment were never offered before.
                assert!(offered != Offered::NotAssigned);
            }
            *next = (*next).max(offset + 1);
        }
        self.scheduler.pause_changes();
    }

    fn start_all(&mut self) {
        self.scheduler.advance(self.now);
        while let Some(start) = self.scheduler.start_next() {
            self.started_batch(start);
        }
        self.check_nothing_waits_in_vain();
    }

    /// An attempt starts, in one batch with those that come `before` it.
    fn started(&mut self, start: Start<Entry>, shared: bool, before: &[Ticket]) {
        let Start { ticket, payload: entry, task, attempt, careful } = start;
        self.counts.starts += 1;
        assert!(!self.held.contains(&entry.partition), "{entry:?} starts before its partition's past is known");
        let alone = self.running.is_empty() || !(careful || self.running.values().any(|other| other.careful));
        assert!(alone, "{entry:?} and another run beside each other, and one must be alone");
        if careful {
            self.note_alone(&entry, Some(entry.offset));
        }
        let begun = self.begun.entry(entry.partition.clone()).or_insert(entry.offset);
        *begun = entry.offset.max(*begun);
        let (generation, _) = self.owned[&entry.partition];
        if self.scheduler.flood().is_some() {
            assert!(self.running.is_empty(), "I6: after a flood one record at a time is tried");
        }
        let place = (entry.partition.clone(), entry.offset);
        if shared {
            let alone = entry.handler != SHARES || self.failures.contains_key(&place) || self.alone.contains(&place);
            assert!(!alone && matches!(task, Task::Handle { .. }), "{entry:?} must run alone");
            assert!(!self.declared.contains(&entry.handler), "a probe runs alone");
        }
        if let Some(key) = &entry.key {
            let same_key =
                |other: &Running| other.entry.partition == entry.partition && other.entry.key.as_ref() == Some(key);
            let overlap = self.running.iter().find(|(ticket, it)| same_key(it) && !before.contains(ticket));
            assert!(overlap.is_none(), "I2: {entry:?} runs beside {:?}", overlap.map(|(_, other)| &other.entry));
            let ahead: Vec<i64> =
                before.iter().map(|it| &self.running[it]).filter(|it| same_key(it)).map(|it| it.entry.offset).collect();
            let skipped = self.log[&entry.partition].iter().find(|other| {
                other.offset < entry.offset
                    && other.key.as_ref() == Some(key)
                    && !self.done[&entry.partition].contains(&other.offset)
                    && !ahead.contains(&other.offset)
            });
            assert!(ahead.iter().all(|offset| *offset < entry.offset), "I2: {entry:?} after {ahead:?} in a batch");
            assert!(skipped.is_none(), "I2: {entry:?} starts before {skipped:?} is done");
        }
        if let Some(due) = self.due.remove(&place) {
            assert!(due <= self.now, "{entry:?} is tried again too early");
        }
        let crashes = self.past.get(&place).copied().unwrap_or(0);
        assert!(careful || crashes == 0, "{entry:?} has ended its process and does not run alone");
        let failures = self.failures.get(&place).copied().unwrap_or(0) + crashes;
        let bury = matches!(task, Task::Bury(_));
        if let Task::Handle { last_attempt } = task {
            assert_eq!(attempt, failures + 1, "attempts are counted by failures that count: {entry:?}");
            assert_eq!(last_attempt, RETRY.is_last(attempt));
            assert!(!RETRY.gives_up_after_crashes(crashes), "{entry:?} is attempted after its last death");
        }
        let handler = entry.handler;
        let began_in_outage = !bury && self.declared.contains(&handler);
        if began_in_outage {
            let probes = self.running.values().filter(|it| it.entry.handler == handler && it.began_in_outage).count();
            assert_eq!(probes, 0, "two probes at a time");
        }
        self.running.insert(ticket, Running { entry, attempt, bury, generation, began_in_outage, careful });
    }

    fn finish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Running { entry, bury, generation, careful, .. } = self.running.remove(&ticket).expect("it was picked");
        let rolled_back = matches!(outcome, Outcome::RolledBack);
        let place = (entry.partition.clone(), entry.offset);
        let unavailable = matches!(outcome, Outcome::Failed(HandlerError::Unavailable(_)));
        if matches!(outcome, Outcome::Failed(HandlerError::Retry(_))) {
            let lane = entry.key.clone().map_or(Lane::Record(entry.offset), Lane::Key);
            self.suspects.insert((entry.handler, entry.partition.clone(), lane));
        }
        let rejected = matches!(outcome, Outcome::Failed(HandlerError::Reject(_)));
        if matches!(outcome, Outcome::Handled { .. } | Outcome::Buried) {
            self.done.get_mut(&entry.partition).expect("it is in the log").insert(entry.offset);
        }
        if careful {
            self.note_alone(&entry, None);
        }
        if careful && matches!(outcome, Outcome::Handled { .. } | Outcome::Buried) {
            self.durable.crashes.remove(&place);
        }
        let random = self.random.random();
        let flooded = self.scheduler.flood().is_some();
        let verdict = self.scheduler.finish(ticket, outcome, self.now, random);
        self.counts.floods += u64::from(!flooded && self.scheduler.flood().is_some());
        let current = self.owned.get(&entry.partition).is_some_and(|(owned, _)| *owned == generation);
        assert_eq!(verdict == Verdict::Stale, !current, "results of older generations count for nothing");
        match verdict {
            Verdict::Alone => {
                assert!(rolled_back, "only what was undone runs alone");
                self.alone.insert(place);
            }
            Verdict::Retry { pause } => {
                if !bury {
                    *self.failures.entry(place.clone()).or_default() += 1;
                }
                self.due.insert(place, self.now + pause);
            }
            Verdict::Unavailable { began } => {
                assert!(unavailable || (self.faults.misjudged && !rejected), "I6: {entry:?} is at fault itself");
                let suspects = self.suspects.iter().filter(|(handler, ..)| *handler == entry.handler).count();
                assert!(unavailable || !began || suspects >= BREAKER.at_least as usize, "I6: {suspects} keys failed");
                self.counts.misjudged += u64::from(began && !unavailable);
                let new = self.declared.insert(entry.handler);
                assert_eq!(began, new, "an outage begins once");
            }
            Verdict::Handled { outage_ended } => {
                self.told.insert(place);
                if outage_ended.is_none() {
                    return;
                }
                self.suspects.retain(|(handler, ..)| *handler != entry.handler);
                assert!(self.declared.remove(&entry.handler), "an outage ends that had begun");
                for other in self.running.values_mut().filter(|other| other.entry.handler == entry.handler) {
                    other.began_in_outage = false;
                }
            }
            Verdict::Bury | Verdict::Stale => {}
        }
    }

    fn outcome(&mut self, entry: &Entry, attempt: u32, bury: bool) -> Outcome {
        if bury {
            let fails = self.faults.failures && self.random.random_bool(0.3);
            return if fails { Outcome::BuryFailed } else { Outcome::Buried };
        }
        if self.away.contains(&entry.handler) && self.faults.misjudged {
            return Outcome::Failed(HandlerError::retry("refused"));
        }
        if self.away.contains(&entry.handler) || (entry.nature == Nature::CriesWolf && !self.settling) {
            return Outcome::Failed(HandlerError::unavailable("away"));
        }
        if self.faults.deaths && self.is_done(entry) {
            return Outcome::Handled { proves_dependency: false };
        }
        match entry.nature {
            Nature::FailsTimes(times) if attempt <= times => Outcome::Failed(HandlerError::retry("not yet")),
            Nature::AlwaysFails => Outcome::Failed(HandlerError::retry("never")),
            Nature::Rejects => Outcome::Failed(HandlerError::reject("bad")),
            Nature::Works | Nature::FailsTimes(_) | Nature::CriesWolf | Nature::Kills => {
                Outcome::Handled { proves_dependency: self.random.random_bool(0.9) }
            }
        }
    }

    fn pass_time(&mut self) {
        let small = Duration::from_millis(self.random.random_range(1..100));
        let next = self.scheduler.next_timer().filter(|_| self.random.random_bool(0.7));
        self.now = next.map_or(self.now + small, |at| at.max(self.now));
    }

    fn commit(&mut self) {
        for (partition, generation, offset) in self.scheduler.new_watermarks() {
            assert_eq!(self.owned[&partition].0, generation, "only owned partitions are committed");
            self.committed_to(&partition, offset);
            self.got_to(&partition, offset);
        }
    }

    fn committed_to(&mut self, partition: &Partition, offset: i64) {
        let lost = self.log[partition]
            .iter()
            .find(|entry| entry.offset < offset && !self.done[partition].contains(&entry.offset));
        assert!(lost.is_none(), "I1: committed {offset} before {lost:?} was done");
        let committed = self.committed.get_mut(partition).expect("it is in the log");
        assert!(offset >= *committed, "a commit went back");
        *committed = offset;
    }

    fn kills(&self, running: &Running) -> bool {
        running.entry.nature == Nature::Kills && !running.bury && !self.is_done(&running.entry)
    }

    fn is_done(&self, entry: &Entry) -> bool {
        self.done[&entry.partition].contains(&entry.offset)
    }

    /// Everything in memory is gone, attempts included; what they had done stays done.
    fn crash(&mut self) {
        let limits = Limits { concurrency: CONCURRENCY, records: 20, bytes: 10_000 };
        self.scheduler = scheduler(limits, self.faults, self.batching);
        self.counts.deaths += 1;
        self.running.clear();
        self.batches.clear();
        self.held.clear();
        self.declared.clear();
        self.suspects.clear();
        self.owned.clear();
        self.reassign_all();
    }

    /// I3: with room for another attempt, the first record of every key runs, or waits for its own retry, its
    /// dependency, or an older generation's attempt at its key.
    fn check_nothing_waits_in_vain(&self) {
        if self.batches.len() >= CONCURRENCY || self.scheduler.flood().is_some() {
            return;
        }
        if let Some(until) = self.scheduler.gathers_until() {
            assert!(self.batching.1 && !self.batches.is_empty(), "what is ready waits for nothing");
            assert!(until <= self.now + Duration::from_secs(1), "what is ready waits for long");
            return;
        }
        // One that must run alone may be waiting until nothing runs, or be running.
        if self.faults.deaths && !self.running.is_empty() {
            return;
        }
        for (partition, (_, next)) in self.owned.iter().filter(|(partition, _)| !self.held.contains(partition)) {
            let mut seen = BTreeSet::new();
            let committed = self.committed[partition];
            let in_hand = self.log[partition].iter().filter(|it| (committed..*next).contains(&it.offset));
            for entry in in_hand.filter(|it| !self.told.contains(&(partition.clone(), it.offset))) {
                if entry.key.as_ref().is_some_and(|key| !seen.insert(key.clone())) {
                    continue;
                }
                let runs = self.running.values().any(|it| {
                    it.entry.partition == *partition
                        && (it.entry.offset == entry.offset || (entry.key.is_some() && it.entry.key == entry.key))
                });
                let waits = self.due.get(&(partition.clone(), entry.offset)).is_some_and(|due| *due > self.now);
                assert!(runs || waits || self.declared.contains(&entry.handler), "I3: {entry:?} waits in vain");
            }
        }
    }
}
