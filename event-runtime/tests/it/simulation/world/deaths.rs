//! What outlives a process, and tells the next one how it ended.

use std::collections::{BTreeMap, HashMap};

use event_runtime::scheduler::{Extent, Legacy, Partition};
use rand::RngExt;

use super::{CONCURRENCY, Counts, Entry, Nature, World};

/// What outlives the process, beside the log and what is committed.
#[derive(Default)]
pub(super) struct Durable {
    owners: BTreeMap<Partition, Row>,
    pub(super) crashes: HashMap<(Partition, i64), u32>,
}

/// Who has a partition, what it attempts alone, and how many before it died without getting further.
#[derive(Clone)]
struct Row {
    owner: Owner,
    attempting: Option<i64>,
    deaths: u32,
    reached: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Owner {
    /// The process of so many deaths.
    Life(u64),
    /// Another member of the group.
    Other,
}

impl Row {
    fn of(owner: Owner) -> Row {
        Row { owner, attempting: None, deaths: 0, reached: 0 }
    }
}

impl World {
    /// Tells how the owner before left a partition, as the database knows it, or where one ends.
    pub(super) fn admit_one(&mut self) {
        let Some(partition) = self.pick_owned() else { return };
        let (generation, _) = self.owned[&partition];
        if !self.held.remove(&partition) {
            let end = self.log[&partition].last().expect("the log has records").offset + 1;
            self.scheduler.note_extent(&partition, generation, Extent { start: 0, end });
            return;
        }
        let me = Owner::Life(self.counts.deaths);
        let row = self.durable.owners.entry(partition.clone()).or_insert(Row::of(me));
        let before = std::mem::replace(row, Row { owner: me, attempting: None, ..row.clone() });
        row.deaths += u32::from(before.owner != me);
        let Row { deaths, reached, .. } = *row;
        let culprit = before.attempting.filter(|_| before.owner != me);
        if let Some(offset) = culprit {
            *self.durable.crashes.entry((partition.clone(), offset)).or_default() += 1;
        }
        let crashes: BTreeMap<_, _> = self
            .durable
            .crashes
            .iter()
            .filter(|((of, _), _)| *of == partition)
            .map(|((_, offset), n)| (*offset, *n))
            .collect();
        self.past.extend(crashes.iter().map(|(offset, crashes)| ((partition.clone(), *offset), *crashes)));
        self.scheduler.admit(&partition, generation, Legacy { deaths, reached, crashes, culprit });
    }

    /// Which record runs alone, or that it has ended.
    pub(super) fn note_alone(&mut self, entry: &Entry, offset: Option<i64>) {
        let me = Owner::Life(self.counts.deaths);
        if let Some(row) = self.durable.owners.get_mut(&entry.partition).filter(|row| row.owner == me) {
            row.attempting = offset;
        }
    }

    /// The partition is handled up to `offset`.
    pub(super) fn got_to(&mut self, partition: &Partition, offset: i64) {
        let me = Owner::Life(self.counts.deaths);
        let row = self.durable.owners.get_mut(partition).filter(|row| row.owner == me);
        if let Some(row) = row.filter(|row| row.deaths > 0 && row.reached < offset) {
            (row.deaths, row.reached) = (0, offset);
            self.counts.outlived += 1;
        }
    }

    /// What the database comes to know of it: it may be away, and another member may have been quicker.
    pub(super) fn give_back(&mut self, partition: &Partition) {
        match self.random.random_range(0..4) {
            0 => {}
            1 => _ = self.durable.owners.insert(partition.clone(), Row::of(Owner::Other)),
            _ => _ = self.durable.owners.remove(partition),
        }
    }

    /// A record ends the process.
    pub(super) fn die(&mut self, careful: bool) {
        self.counts.unsolved += u64::from(!careful);
        self.crash();
    }

    /// A record ends no more processes than it has attempts, but for those of whose end the cause was not known: there are
    /// two where nothing is known of a partition, one more where it got further after a death, and another when as many
    /// records are done as may be the cause.
    pub(super) fn check_deaths(&self) {
        if self.faults.rebalances {
            return;
        }
        let killers = self.log.values().flatten().filter(|entry| entry.nature == Nature::Kills).count() as u64;
        let records = self.log.values().map(Vec::len).sum::<usize>() as u64;
        let partitions = self.log.len() as u64;
        let Counts { deaths, unsolved, outlived, .. } = self.counts;
        assert!(
            unsolved <= 2 * partitions + outlived + records / (4 * CONCURRENCY as u64),
            "{unsolved} deaths by {killers} of {records} records, got over {outlived} times"
        );
        assert_eq!(deaths - unsolved, killers * 3, "each of {killers} has three attempts");
    }
}
