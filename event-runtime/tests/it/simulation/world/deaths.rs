//! What outlives a process, and tells the next one how it ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_runtime::scheduler::{Extent, Legacy, Partition};
use rand::RngExt;

use super::{
    CONCURRENCY, World,
    attempts::Running,
    log::{Entry, Nature},
};

/// What outlives the process, beside the log and what is committed.
#[derive(Default)]
pub(super) struct Durable {
    owners: BTreeMap<Partition, Row>,
    pub(super) crashes: HashMap<(Partition, i64), u32>,
}

/// Which process has a partition, what it attempts alone, and how many before it died without getting further.
#[derive(Clone)]
struct Row {
    owner: u64,
    attempting: Option<i64>,
    deaths: u32,
    reached: i64,
}

impl World {
    /// Tells how the owner before left a partition, as the database knows it, or where one ends.
    pub(super) fn admit_one(&mut self, m: usize) {
        let hands: Vec<_> = self.members[m].hands.keys().cloned().collect();
        if !hands.is_empty() {
            let pick = self.random.random_range(0..hands.len());
            self.admit(m, &hands[pick]);
        }
    }

    pub(super) fn admit_all(&mut self, m: usize) {
        for partition in self.members[m].hands.keys().cloned().collect::<Vec<_>>() {
            self.admit(m, &partition);
        }
    }

    fn admit(&mut self, m: usize, partition: &Partition) {
        let end = self.end(partition);
        let member = &mut self.members[m];
        let (me, durable) = (member.life, &mut self.groups[member.group].durable);
        let hand = member.hands.get_mut(partition).expect("it is one of them");
        if !std::mem::take(&mut hand.held) {
            member.scheduler.note_extent(partition, hand.generation, Extent { start: 0, end });
            return;
        }
        let new = Row { owner: me, attempting: None, deaths: 0, reached: 0 };
        let row = durable.owners.entry(partition.clone()).or_insert(new);
        let before = std::mem::replace(row, Row { owner: me, attempting: None, ..row.clone() });
        row.deaths += u32::from(before.owner != me);
        let Row { deaths, reached, .. } = *row;
        let culprit = before.attempting.filter(|_| before.owner != me);
        if let Some(offset) = culprit {
            *durable.crashes.entry((partition.clone(), offset)).or_default() += 1;
        }
        let crashes: BTreeMap<_, _> = durable
            .crashes
            .iter()
            .filter(|((of, _), _)| of == partition)
            .map(|((_, offset), n)| (*offset, *n))
            .collect();
        hand.past.extend(&crashes);
        member.scheduler.admit(partition, hand.generation, Legacy { deaths, reached, crashes, culprit });
    }

    /// Which record runs alone, or that it has ended.
    pub(super) fn note_alone(&mut self, m: usize, entry: &Entry, offset: Option<i64>) {
        if let Some(row) = self.row(m, &entry.partition) {
            row.attempting = offset;
        }
    }

    /// The partition is handled up to `offset`.
    pub(super) fn got_to(&mut self, m: usize, partition: &Partition, offset: i64) {
        let row = self.row(m, partition);
        if let Some(row) = row.filter(|row| row.deaths > 0 && row.reached < offset) {
            (row.deaths, row.reached) = (0, offset);
            self.counts.add("outlived", 1);
        }
    }

    /// What the database comes to know of it: it may be away.
    pub(super) fn give_back(&mut self, m: usize, partition: &Partition) {
        if self.random.random_bool(0.75) && self.row(m, partition).is_some() {
            self.groups[self.members[m].group].durable.owners.remove(partition);
        }
    }

    /// A member changes only what is its own.
    fn row(&mut self, m: usize, partition: &Partition) -> Option<&mut Row> {
        let (group, me) = (self.members[m].group, self.members[m].life);
        self.groups[group].durable.owners.get_mut(partition).filter(|row| row.owner == me)
    }

    pub(super) fn kills(&self, m: usize, running: &Running) -> bool {
        let entry = running.entry();
        entry.nature == Nature::Kills && !running.bury && !self.is_duplicate(m, entry)
    }

    /// A record ends the process.
    pub(super) fn die(&mut self, m: usize, careful: bool) {
        self.counts.add("unsolved deaths", u64::from(!careful));
        self.crash(m);
    }

    /// A record ends no more processes than it has attempts, but for those of whose end the cause was not known: there are
    /// two where nothing is known of a partition, one more where it got further after a death, and another when as many
    /// records are done as may be the cause.
    pub(super) fn check_deaths(&self) {
        if self.faults.rebalances {
            return;
        }
        let killers = self.log.values().flatten().filter(|entry| entry.nature == Nature::Kills);
        let killers = killers.map(|entry| entry.event).collect::<BTreeSet<_>>().len() as u64;
        let records = self.log.values().map(Vec::len).sum::<usize>() as u64;
        let partitions = self.log.len() as u64;
        let [deaths, unsolved, outlived] = ["deaths", "unsolved deaths", "outlived"].map(|what| self.counts.of(what));
        assert!(
            unsolved <= 2 * partitions + outlived + records / (4 * CONCURRENCY as u64),
            "{unsolved} deaths by {killers} of {records} records, got over {outlived} times"
        );
        assert_eq!(deaths - unsolved, killers * 3, "each of {killers} has three attempts");
    }
}
