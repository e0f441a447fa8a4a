//! What must hold, whatever happens.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use event_runtime::scheduler::{Partition, Start, Task, Ticket};

use super::{
    CONCURRENCY, RETRY, SHARES, World,
    attempts::Running,
    log::{Entry, Job},
};

impl World {
    pub(super) fn check_start(&mut self, m: usize, start: &Start<Rc<Job>>, shared: bool, before: &[Ticket]) {
        let Start { payload: job, task, attempt, careful, .. } = start;
        let entry = &job.entry;
        let member = &self.members[m];
        let hand = &member.hands[&entry.partition];
        assert!(!hand.held, "{entry:?} starts before its partition's past is known");
        assert!(entry.is_for(member.group), "I10: {entry:?} is for another group");
        let alone = member.running.is_empty() || !(*careful || member.running.values().any(|other| other.careful));
        assert!(alone, "{entry:?} and another run beside each other, and one must be alone");
        if hand.stopped {
            assert!(hand.begun.is_some_and(|begun| entry.offset < begun), "I5: of a stopped partition only gaps start");
            assert!(!shared, "I5: gaps run alone");
        }
        if member.scheduler.flood().is_some() {
            assert!(member.running.is_empty(), "I6: after a flood one record at a time is tried");
        }
        if shared {
            let alone = entry.handler != SHARES
                || entry.replay > 0
                || hand.failures.contains_key(&entry.offset)
                || hand.alone.contains(&entry.offset);
            assert!(!alone && matches!(task, Task::Handle { .. }), "{entry:?} must run alone");
            assert!(!member.declared.contains(&entry.handler), "a probe runs alone");
        }
        if let Some(due) = hand.due.get(&entry.offset) {
            assert!(*due <= self.now, "{entry:?} is tried again too early");
        }
        let crashes = hand.past.get(&entry.offset).copied().unwrap_or(0);
        assert!(*careful || crashes == 0, "{entry:?} has ended its process and does not run alone");
        if let Task::Handle { last_attempt } = task {
            let failures = hand.failures.get(&entry.offset).copied().unwrap_or(0) + crashes;
            assert_eq!(*attempt, failures + 1, "attempts are counted by failures that count: {entry:?}");
            assert_eq!(*last_attempt, RETRY.is_last(*attempt));
            assert!(!RETRY.gives_up_after_crashes(crashes), "{entry:?} is attempted after its last death");
            if member.declared.contains(&entry.handler) {
                let probe = |it: &&Running| it.entry().handler == entry.handler && it.began_in_outage;
                assert_eq!(member.running.values().filter(probe).count(), 0, "two probes at a time");
            }
        }
        self.check_order_of_starts(m, entry, before);
        let group = &self.groups[self.members[m].group];
        let again = group.done[&entry.partition].contains(&entry.offset) && !group.repeatable.contains(&entry.place());
        let knows = self.is_owner(m, &entry.partition, self.members[m].hands[&entry.partition].generation);
        assert!(!again || !knows, "I5: {entry:?} is attempted again after a clean hand-over");
    }

    /// I2, at the start of an attempt, in one batch with those that come `before` it.
    fn check_order_of_starts(&mut self, m: usize, entry: &Entry, before: &[Ticket]) {
        let member = &self.members[m];
        let same_key =
            |running: &Running| running.entry().is_neighbour(entry) || running.entry().place() == entry.place();
        let overlap = member.running.iter().find(|(ticket, it)| same_key(it) && !before.contains(ticket));
        assert!(overlap.is_none(), "I2: {entry:?} runs beside {:?}", overlap.map(|(_, other)| other.entry()));
        let ahead: Vec<i64> = before
            .iter()
            .map(|ticket| &member.running[ticket])
            .filter(|it| same_key(it))
            .map(|it| it.entry().offset)
            .collect();
        assert!(ahead.iter().all(|offset| *offset < entry.offset), "I2: {entry:?} after {ahead:?} in a batch");
        let done = &self.groups[member.group].done[&entry.partition];
        let skipped = self.log[&entry.partition].iter().find(|other| {
            other.is_neighbour(entry)
                && other.offset < entry.offset
                && !done.contains(&other.offset)
                && !ahead.contains(&other.offset)
        });
        assert!(skipped.is_none(), "I2: {entry:?} starts before {skipped:?} is done");
        let mut old_owners = 0;
        for (other, neighbour) in self.members.iter().enumerate().filter(|(n, it)| *n != m && it.group == member.group)
        {
            for running in neighbour.running.values().filter(|it| same_key(it)) {
                let ours = self.is_owner(m, &entry.partition, member.hands[&entry.partition].generation);
                let theirs = self.is_owner(other, &entry.partition, running.generation);
                let taken_away = running.cut_off || neighbour.expired.contains(&entry.partition);
                // One that is forsaken was not drained in time, and is cut off once its dispatcher notices.
                let late = neighbour.forsaken.contains(&entry.partition);
                assert!(
                    !ours || (!theirs && (taken_away || late)),
                    "I2: {entry:?} runs beside {:?} of a member that gave it back",
                    running.entry()
                );
                old_owners += 1;
            }
        }
        self.counts.add("at once with an old owner", old_owners);
    }

    /// I2: records are first done in their key's order, whoever does them.
    pub(super) fn check_order_of_first_ends(&self, m: usize, entry: &Entry) {
        if !self.groups[self.members[m].group].done[&entry.partition].contains(&entry.offset) {
            self.assert_none_after(m, entry);
        }
    }

    /// An effect, of an event that has none yet if there is an inbox.
    pub(super) fn check_effect(&mut self, m: usize, entry: &Entry) {
        let group = self.members[m].group;
        assert!(entry.is_for(group), "I10: {entry:?} is handled by another group");
        if entry.has_inbox() {
            self.assert_none_after(m, entry);
            assert!(self.groups[group].effects.insert(entry.event), "I10: {entry:?} takes effect twice");
        }
    }

    fn assert_none_after(&self, m: usize, entry: &Entry) {
        let done = &self.groups[self.members[m].group].done[&entry.partition];
        let after = self.log[&entry.partition].iter().find(|other| {
            other.is_neighbour(entry)
                && other.offset > entry.offset
                && other.is_for(self.members[m].group)
                && done.contains(&other.offset)
        });
        assert!(after.is_none(), "I2: {entry:?} takes effect after {after:?}");
    }

    /// What is done and not committed is read again by the next owner.
    pub(super) fn excuse_uncommitted(&mut self, group: usize, partition: &Partition) {
        let group = &mut self.groups[group];
        let committed = group.committed[partition];
        let uncommitted = group.done[partition].range(committed..).map(|offset| (partition.clone(), *offset));
        group.repeatable.extend(uncommitted);
        let letters = group.letters.iter().map(|letter| letter.entry.place());
        group.repeatable.extend(letters.filter(|(of, offset)| of == partition && *offset >= committed));
    }

    /// These may take effect without anybody's knowledge.
    pub(super) fn excuse(&mut self, m: usize, tickets: &[Ticket]) {
        let member = &self.members[m];
        let places = tickets.iter().map(|ticket| member.running[ticket].entry().place());
        self.groups[member.group].repeatable.extend(places);
    }

    /// I3: with room for another attempt, the first record of every key runs, or waits for its own retry, its
    /// dependency, or an older generation's attempt at its key.
    pub(super) fn check_nothing_waits_in_vain(&self, m: usize) {
        let member = &self.members[m];
        if member.batches.len() >= CONCURRENCY || member.scheduler.flood().is_some() {
            return;
        }
        if let Some(until) = member.scheduler.gathers_until() {
            assert!(member.batching.1 && !member.batches.is_empty(), "what is ready waits for nothing");
            assert!(until <= self.now + Duration::from_secs(1), "what is ready waits for long");
            return;
        }
        // One that must run alone may be waiting until nothing runs, or be running.
        if self.faults.deaths && !member.running.is_empty() {
            return;
        }
        for (partition, hand) in member.hands.iter().filter(|(_, hand)| !hand.held && !hand.stopped) {
            let mut seen = BTreeSet::new();
            for entry in self.log[partition].iter().filter(|entry| hand.in_hand.contains(&entry.offset)) {
                if entry.key.as_ref().is_some_and(|key| !seen.insert(key)) {
                    continue;
                }
                let runs = member
                    .running
                    .values()
                    .any(|running| running.entry().place() == entry.place() || running.entry().is_neighbour(entry));
                let waits = hand.due.get(&entry.offset).is_some_and(|due| *due > self.now);
                assert!(runs || waits || member.declared.contains(&entry.handler), "I3: {entry:?} waits in vain");
            }
        }
    }
}
