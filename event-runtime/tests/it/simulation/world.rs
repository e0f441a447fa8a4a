//! One schedule: a broker's log, the members of one group or two, and what really happened, against which every decision
//! of theirs is checked.

mod attempts;
mod checks;
mod commits;
mod coordinator;
mod deaths;
mod log;
mod members;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use event_runtime::{
    RetryPolicy,
    inbox::Fate,
    scheduler::{BreakerLimits, Partition},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::{
    commits::Request,
    coordinator::Ownership,
    deaths::Durable,
    log::{Entry, Letter},
    members::Member,
};
use super::inbox::Inbox;

#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub failures: bool,
    /// Several members, among whom partitions change hands.
    pub rebalances: bool,
    /// Commits that are refused, late, or carried out and reported as failed.
    pub commits: bool,
    /// Two groups, and dead letters that are put back for one of them.
    pub replays: bool,
    pub outages: bool,
    /// Outages that handlers take for failures of their records.
    pub misjudged: bool,
    pub floods: bool,
    /// Records that end the process.
    pub deaths: bool,
}

impl Faults {
    pub const ALL: Faults = Faults {
        failures: true,
        rebalances: true,
        commits: true,
        replays: true,
        outages: true,
        misjudged: true,
        floods: true,
        deaths: true,
    };
}

const CONCURRENCY: usize = 4;
/// The handler whose records may share transactions.
const SHARES: usize = 0;
/// The handler without an inbox.
const PLAIN: usize = 2;
const RETRY: RetryPolicy = RetryPolicy::limited(2).backoff(Duration::from_millis(50), Duration::from_millis(400));

const BREAKER: BreakerLimits =
    BreakerLimits { at_least: 3, percent: 80, window: Duration::from_secs(2), patience: Duration::from_secs(3) };

/// What took place, and how often.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn merge(&mut self, other: &Counts) {
        other.0.iter().for_each(|(what, times)| self.add(what, *times));
    }
}

/// What a consumer group leaves outside of its members.
#[derive(Default)]
struct Group {
    committed: BTreeMap<Partition, i64>,
    /// Who has which partition, as the coordinator knows it.
    owners: BTreeMap<Partition, Ownership>,
    /// Offsets whose handling or dead letter really took place.
    done: BTreeMap<Partition, BTreeSet<i64>>,
    /// What may be done and is attempted again: its owner died, lost its partition, or could not commit it.
    repeatable: BTreeSet<(Partition, i64)>,
    inbox: Inbox,
    /// Events that took effect by a handler with an inbox.
    effects: BTreeSet<u32>,
    letters: Vec<Letter>,
    durable: Durable,
}

pub struct World {
    faults: Faults,
    random: StdRng,
    now: Duration,
    log: BTreeMap<Partition, Vec<Entry>>,
    groups: Vec<Group>,
    members: Vec<Member>,
    /// Commits that members have sent which are no more.
    orphans: Vec<Request>,
    /// How many processes there have been.
    lives: u64,
    /// Handlers whose dependency really is away.
    away: BTreeSet<usize>,
    counts: Counts,
    settling: bool,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let groups = if faults.replays { 2 } else { 1 };
        let members = if faults.rebalances { random.random_range(1..4) } else { 1 };
        let mut world = World {
            faults,
            random,
            now: Duration::ZERO,
            log: BTreeMap::new(),
            groups: (0..groups).map(|_| Group::default()).collect(),
            members: Vec::new(),
            orphans: Vec::new(),
            lives: 0,
            away: BTreeSet::new(),
            counts: Counts::default(),
            settling: false,
        };
        for number in 0..groups * members {
            let member = world.member(number % groups);
            world.members.push(member);
        }
        world.write_log();
        world.assign_all();
        world
    }

    /// Plays the schedule.
    pub fn run(mut self) -> Counts {
        for _ in 0..self.random.random_range(50..300) * self.members.len().min(3) {
            self.step();
        }
        self.settle();
        self.check_deaths();
        self.check_every_event_is_accounted_for();
        self.counts
    }

    fn handlers(&self) -> usize {
        // Who is no database's business can be blamed for no death of a process that was killed from outside.
        if self.faults.deaths { PLAIN } else { PLAIN + 1 }
    }

    fn step(&mut self) {
        let m = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..100) {
            0..5 if self.faults.deaths => self.admit_one(m),
            0..28 => self.deliver(m),
            28..64 => self.finish_one(m),
            64..76 => self.pass_time(),
            76..82 => self.commit(m),
            82..88 => self.answer_commit(m),
            88..95 if self.faults.rebalances => self.rebalance(m),
            95..97 if self.faults.outages => {
                let handler = self.random.random_range(0..self.handlers());
                if !self.away.remove(&handler) {
                    self.away.insert(handler);
                }
            }
            97..99 if self.faults.replays => _ = self.replay(self.members[m].group),
            _ => self.commit(m),
        }
        self.hand_over(m);
        self.start_all(m);
    }

    /// Without further faults, everything must come to its end.
    fn settle(&mut self) {
        self.away.clear();
        self.settling = true;
        self.settle_the_past();
        for _ in 0..4000 {
            self.assign_all();
            for m in 0..self.members.len() {
                self.admit_all(m);
                self.deliver_all(m);
                self.finish_all(m);
                self.commit(m);
                self.answer_commit(m);
            }
            if !(0..self.groups.len()).any(|group| self.replay(group)) && self.is_over() {
                return;
            }
            self.pass_time();
        }
        let members: Vec<_> = self.members.iter().map(|member| &member.scheduler).collect();
        let committed: Vec<_> = self.groups.iter().map(|group| &group.committed).collect();
        panic!("no end: committed {committed:?}, {members:?}");
    }

    /// Revokes return, losses are heard of, and commits that are on their way arrive. Whoever was taken back by one of those
    /// does not know, and what it has done is read again by its successor only.
    fn settle_the_past(&mut self) {
        while !self.orphans.is_empty() || !self.members.iter().all(Member::is_at_rest) {
            for m in 0..self.members.len() {
                self.finish_all(m);
                self.commit(m);
                self.answer_commit(m);
                self.hand_over(m);
                self.learn(m);
            }
        }
        for m in 0..self.members.len() {
            if self.is_taken_back(m) {
                self.expire(m);
                self.learn(m);
            }
        }
    }

    fn finish_all(&mut self, m: usize) {
        self.start_all(m);
        for _ in 0..self.members[m].batches.len() {
            self.finish_one(m);
        }
        self.start_all(m);
    }

    fn is_over(&self) -> bool {
        let at_end = |group: &Group| self.log.keys().all(|partition| group.committed[partition] == self.end(partition));
        self.groups.iter().all(at_end)
    }

    fn pass_time(&mut self) {
        let small = Duration::from_millis(self.random.random_range(1..100));
        let next = self.members.iter().filter_map(|member| member.scheduler.next_timer()).min();
        let next = next.filter(|_| self.random.random_bool(0.7));
        self.now = next.map_or(self.now + small, |at| at.max(self.now));
    }

    /// No event has vanished: it was handled, or there is a dead letter of it.
    fn check_every_event_is_accounted_for(&self) {
        for (number, group) in self.groups.iter().enumerate() {
            for entry in self.log.values().flatten().filter(|entry| entry.is_for(number)) {
                let letter = group.letters.iter().any(|letter| letter.entry.event == entry.event);
                let known = match group.inbox.fate(entry.event) {
                    Some(Fate::Handled) => true,
                    Some(Fate::Dead) => letter,
                    None => !entry.has_inbox() && group.done[&entry.partition].contains(&entry.offset),
                };
                assert!(known, "I1: {entry:?} is neither handled nor a dead letter");
            }
        }
    }
}
