//! What stands in the topics: records, dead letters, and what was put back.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use event_runtime::{inbox::Fate, scheduler::Partition};
use rand::RngExt;

use super::{PLAIN, World};

/// A letter whose record was put back so often goes to quarantine.
const MAX_REPLAYS: u32 = 2;

/// A record of the broker's log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) partition: Partition,
    pub(super) offset: i64,
    pub(super) key: Option<Arc<[u8]>>,
    pub(super) handler: usize,
    pub(super) nature: Nature,
    /// Which event it is: more than one record may say the same.
    pub(super) event: u32,
    /// Which replay of a dead letter it is; 0 for a record that is none.
    pub(super) replay: u32,
    /// The only group a replay is for.
    pub(super) target: Option<usize>,
}

/// A record in a member's hand: payload of the offers.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) entry: Entry,
    /// Set when its dead letter is written.
    pub(super) dead_lettered: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nature {
    Works,
    FailsTimes(u32),
    FailsUntil(Duration),
    AlwaysFails,
    Rejects,
    /// Says `Unavailable` whether or not there is an outage, until the end of the schedule: alone, it cannot be told from
    /// an outage.
    CriesWolf,
    /// Ends the process whenever it is attempted.
    Kills,
}

/// A dead letter.
pub(super) struct Letter {
    pub(super) entry: Entry,
    /// Whether it was put back, or set aside for good.
    pub(super) settled: bool,
}

impl Entry {
    pub(super) fn place(&self) -> (Partition, i64) {
        (self.partition.clone(), self.offset)
    }

    /// Whether the handler's database knows which events it has handled.
    pub(super) fn has_inbox(&self) -> bool {
        self.handler != PLAIN
    }

    pub(super) fn is_for(&self, group: usize) -> bool {
        self.target.is_none_or(|target| target == group)
    }

    /// Whether it is another record of the same key.
    pub(super) fn is_neighbour(&self, other: &Entry) -> bool {
        self.key.is_some() && self.key == other.key && self.partition == other.partition && self.offset != other.offset
    }
}

impl Job {
    pub(super) fn of(entry: Entry) -> Rc<Job> {
        Rc::new(Job { entry, dead_lettered: Cell::new(false) })
    }
}

impl World {
    pub(super) fn write_log(&mut self) {
        let keys = self.random.random_range(1..6u8);
        let handlers = self.handlers();
        let mut event = 0;
        for number in 0..self.random.random_range(1..4) {
            let partition = Partition { topic: "t".into(), number };
            let mut offset = self.random.random_range(0..3);
            let mut entries: Vec<Entry> = Vec::new();
            for _ in 0..self.random.random_range(5..40) {
                event += 1;
                let again = !self.faults.deaths && !entries.is_empty() && self.random.random_bool(0.05);
                let entry = if again {
                    entries[self.random.random_range(0..entries.len())].clone()
                } else {
                    let key = self.random.random_bool(0.85).then(|| Arc::from([self.random.random_range(0..keys)]));
                    let handler = self.random.random_range(0..handlers);
                    let nature = self.nature();
                    Entry { partition: partition.clone(), offset, key, handler, nature, event, replay: 0, target: None }
                };
                entries.push(Entry { offset, ..entry });
                // Gaps, as control records leave them.
                offset += if self.random.random_bool(0.1) { 2 } else { 1 };
            }
            self.log.insert(partition.clone(), entries);
            for group in &mut self.groups {
                group.done.insert(partition.clone(), Default::default());
                group.committed.insert(partition.clone(), 0);
            }
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
            5 if self.faults.failures => Nature::FailsUntil(Duration::from_millis(self.random.random_range(0..4000))),
            _ => Nature::Works,
        }
    }

    /// One above the last record.
    pub(super) fn end(&self, partition: &Partition) -> i64 {
        self.log[partition].last().expect("the log has records").offset + 1
    }

    /// A dead letter is acknowledged.
    pub(super) fn write_letter(&mut self, m: usize, entry: &Entry, generation: u64) {
        let owner = self.is_owner(m, &entry.partition, generation);
        let group = &mut self.groups[self.members[m].group];
        if !owner {
            // Whoever owns it now cannot know.
            group.repeatable.insert(entry.place());
        }
        let known = group.letters.iter().any(|letter| letter.entry.place() == entry.place());
        assert!(!known || group.repeatable.contains(&entry.place()), "I5: {entry:?} is dead-lettered twice");
        assert!(entry.replay <= MAX_REPLAYS, "I10: {entry:?} was replayed too often");
        group.letters.push(Letter { entry: entry.clone(), settled: false });
    }

    /// Puts a dead letter back, or sets it aside for good. Whether there was one.
    pub(super) fn replay(&mut self, group: usize) -> bool {
        if !self.faults.replays {
            return false;
        }
        let waiting: Vec<_> = self.groups[group].letters.iter_mut().filter(|letter| !letter.settled).collect();
        if waiting.is_empty() {
            return false;
        }
        let pick = self.random.random_range(0..waiting.len());
        let letter = waiting.into_iter().nth(pick).expect("it is one of them");
        letter.settled = true;
        let entry = letter.entry.clone();
        if entry.replay >= MAX_REPLAYS {
            self.counts.add("quarantined", 1);
            return true;
        }
        self.counts.add("replays", 1);
        if entry.has_inbox() && self.groups[group].inbox.fate(entry.event) == Some(Fate::Handled) {
            self.counts.add("replays of what was handled", 1);
        }
        // Whoever replays may be killed before it has noted that, and begins again.
        let times = if self.random.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..times {
            let offset = self.end(&entry.partition);
            let nature = if self.random.random_bool(0.6) { Nature::Works } else { entry.nature };
            let back = Entry { offset, nature, replay: entry.replay + 1, target: Some(group), ..entry.clone() };
            for (number, other) in self.groups.iter_mut().enumerate() {
                if !back.is_for(number) {
                    other.done.get_mut(&back.partition).expect("it is in the log").insert(offset);
                }
            }
            self.log.get_mut(&entry.partition).expect("it is in the log").push(back);
        }
        true
    }
}
