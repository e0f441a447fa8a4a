//! Partitions come and go: members are told, in time or not, and die.

use event_runtime::scheduler::{Generation, OwnedPartition, Partition};
use rand::RngExt;

use super::{World, members::Hand};

/// Who has a partition, as the coordinator knows it.
pub(super) struct Ownership {
    pub(super) life: u64,
    pub(super) generation: Generation,
    /// What this owner has committed.
    pub(super) reached: i64,
}

/// Partitions that are being given back, from inside the poll thread's callback.
pub(super) struct Revoke {
    partitions: Vec<(Partition, OwnedPartition)>,
    stage: Stage,
    /// What was drained in time, with nothing of it left that could not be begun.
    whole: Vec<Partition>,
}

enum Stage {
    Draining,
    /// The number of the last commit, and what became of it.
    Committing(u64, Option<bool>),
}

impl Revoke {
    pub(super) fn commit_answered(&mut self, number: u64, well: bool) {
        if let Stage::Committing(last, answer) = &mut self.stage
            && *last == number
        {
            *answer = Some(well);
        }
    }
}

impl World {
    pub(super) fn is_owner(&self, m: usize, partition: &Partition, generation: Generation) -> bool {
        let member = &self.members[m];
        let owner = self.groups[member.group].owners.get(partition);
        owner.is_some_and(|owner| (owner.life, owner.generation) == (member.life, generation))
    }

    /// Whether somebody else's commit has undone what it committed.
    pub(super) fn is_taken_back(&self, m: usize) -> bool {
        let group = &self.groups[self.members[m].group];
        let mut owners = group.owners.iter().filter(|(_, owner)| owner.life == self.members[m].life);
        owners.any(|(partition, owner)| group.committed[partition] < owner.reached)
    }

    pub(super) fn rebalance(&mut self, m: usize) {
        match self.random.random_range(0..10) {
            0..4 => self.revoke(m),
            4 => self.expire(m),
            5 => self.learn(m),
            6 => self.crash(m),
            _ => self.assign_one(m),
        }
    }

    fn assign_one(&mut self, m: usize) {
        let group = &self.groups[self.members[m].group];
        let free: Vec<_> = self.log.keys().filter(|partition| !group.owners.contains_key(partition)).cloned().collect();
        if !free.is_empty() {
            let pick = self.random.random_range(0..free.len());
            self.assign(m, &free[pick]);
        }
    }

    /// Gives what is free to whoever may have it.
    pub(super) fn assign_all(&mut self) {
        for m in 0..self.members.len() {
            let group = &self.groups[self.members[m].group];
            let free = self.log.keys().filter(|partition| !group.owners.contains_key(partition));
            for partition in free.cloned().collect::<Vec<_>>() {
                if !self.random.random_bool(0.3) {
                    self.assign(m, &partition);
                }
            }
        }
    }

    fn assign(&mut self, m: usize, partition: &Partition) {
        let member = &mut self.members[m];
        // A member that has not heard of its loss has to join again before it is given anything.
        if member.revoke.is_some() || !member.expired.is_empty() {
            return;
        }
        // The poll thread waits for the dispatcher in a revoke, and assigns nothing before it has given up.
        self.drop_forsaken(m);
        let group = &mut self.groups[self.members[m].group];
        let start = group.committed[partition];
        let member = &mut self.members[m];
        member.generation += 1;
        let (life, generation) = (member.life, member.generation);
        group.owners.insert(partition.clone(), Ownership { life, generation, reached: start });
        member.owned.add(partition, generation);
        match self.faults.deaths {
            true => member.scheduler.assign_held(partition.clone(), generation),
            false => member.scheduler.assign(partition.clone(), generation),
        }
        member.hands.insert(partition.clone(), Hand::new(generation, start, self.faults.deaths));
    }

    /// Some partitions are to be given back.
    fn revoke(&mut self, m: usize) {
        let some: Vec<_> = self.owned(m).into_iter().filter(|_| self.random.random_bool(0.6)).collect();
        if self.members[m].revoke.is_some() || some.is_empty() {
            return;
        }
        // The poll thread has given up on the revoke before.
        self.drop_forsaken(m);
        let member = &mut self.members[m];
        let remove = |partition: Partition| {
            let owned = member.owned.remove(&partition).expect("it is owned");
            member.scheduler.stop(&partition);
            member.hands.get_mut(&partition).expect("it is owned").stopped = true;
            (partition, owned)
        };
        let partitions = some.into_iter().map(remove).collect();
        member.revoke = Some(Revoke { partitions, stage: Stage::Draining, whole: Vec::new() });
    }

    /// Goes on with what is being given back.
    pub(super) fn hand_over(&mut self, m: usize) {
        let forsaken = &self.members[m].forsaken;
        if !forsaken.is_empty()
            && (self.random.random_bool(0.2)
                || !forsaken.iter().any(|partition| self.members[m].scheduler.is_draining(partition)))
        {
            self.drop_forsaken(m);
        }
        let Some(mut revoke) = self.members[m].revoke.take() else { return };
        match revoke.stage {
            Stage::Draining => {
                let scheduler = &self.members[m].scheduler;
                let draining = revoke.partitions.iter().any(|(partition, _)| scheduler.is_draining(partition));
                if draining && self.random.random_bool(0.97) {
                    self.members[m].revoke = Some(revoke);
                    return;
                }
                let offsets = if self.random.random_bool(0.05) {
                    self.answer_too_late(m, &revoke)
                } else {
                    self.counts.add("cut off", u64::from(draining));
                    self.drained(m, &mut revoke, draining)
                };
                let last = if offsets.is_empty() { (0, Some(true)) } else { (self.request(m, &offsets), None) };
                revoke.stage = Stage::Committing(last.0, last.1);
                self.members[m].revoke = Some(revoke);
            }
            Stage::Committing(_, None) if self.settling || self.random.random_bool(0.95) => {
                self.members[m].revoke = Some(revoke);
            }
            Stage::Committing(_, answer) => self.returned(m, &revoke, answer == Some(true)),
        }
    }

    /// What may be committed, now that nothing runs any more, or for too long.
    fn drained(&mut self, m: usize, revoke: &mut Revoke, draining: bool) -> Vec<(Partition, i64)> {
        let mut offsets = Vec::new();
        for (partition, _) in &revoke.partitions {
            let member = &self.members[m];
            let running = member.running.values().any(|running| running.entry().partition == *partition);
            // Nothing waits for a retry, a dependency, an attempt of an older generation, or the end of a flood.
            let waits = member.scheduler.flood().is_some() || !member.declared.is_empty();
            let whole = !draining && !running && !waits && member.hands[partition].due.is_empty();
            let told = std::mem::take(&mut self.members[m].hands.get_mut(partition).expect("it is drained").told);
            if let Some(offset) = self.remove(m, partition, draining) {
                let above = told.range(offset..).next();
                assert!(!whole || above.is_none(), "I5: {above:?} is handled and drained, and cannot be committed");
                offsets.push((partition.clone(), offset));
            }
            if whole {
                revoke.whole.push(partition.clone());
            }
        }
        offsets
    }

    /// The poll thread has given up, and commits what it knows.
    fn answer_too_late(&mut self, m: usize, revoke: &Revoke) -> Vec<(Partition, i64)> {
        self.counts.add("answered too late", 1);
        let member = &mut self.members[m];
        member.forsaken = revoke.partitions.iter().map(|(partition, _)| partition.clone()).collect();
        let known = revoke.partitions.iter().filter_map(|(partition, owned)| {
            let wished = member.wishes.remove(partition).filter(|(generation, _)| *generation == owned.generation);
            Some((partition.clone(), wished.map(|(_, offset)| offset).or(owned.wanted)?))
        });
        known.collect()
    }

    fn drop_forsaken(&mut self, m: usize) {
        for partition in std::mem::take(&mut self.members[m].forsaken) {
            self.remove(m, &partition, true);
        }
    }

    /// The revoke returns: others may have the partitions.
    fn returned(&mut self, m: usize, revoke: &Revoke, committed: bool) {
        for (partition, owned) in &revoke.partitions {
            self.members[m].expired.remove(partition);
            if !self.is_owner(m, partition, owned.generation) {
                continue;
            }
            let group = &mut self.groups[self.members[m].group];
            group.owners.remove(partition);
            if committed && revoke.whole.contains(partition) {
                self.counts.add("clean hand-overs", 1);
                let behind = self.log[partition].iter().find(|entry| {
                    entry.offset >= group.committed[partition]
                        && entry.is_for(self.members[m].group)
                        && group.done[partition].contains(&entry.offset)
                        && !group.repeatable.contains(&entry.place())
                });
                assert!(behind.is_none(), "I5: {behind:?} is done and will be done again");
            }
            self.excuse_uncommitted(self.members[m].group, partition);
            // The next rebalance may change its mind.
            if !self.settling && self.random.random_bool(0.3) {
                self.assign(m, partition);
            }
        }
    }

    /// Its session is over: the coordinator gives its partitions to others, and it goes on.
    pub(super) fn expire(&mut self, m: usize) {
        self.counts.add("expired", 1);
        let (group, life) = (self.members[m].group, self.members[m].life);
        let owners = &self.groups[group].owners;
        let lost: Vec<_> =
            owners.iter().filter(|(_, owner)| owner.life == life).map(|(partition, _)| partition.clone()).collect();
        for partition in lost {
            self.groups[group].owners.remove(&partition);
            self.excuse_uncommitted(group, &partition);
            self.members[m].expired.insert(partition);
        }
        if self.random.random_bool(0.3) {
            self.learn(m);
        }
    }

    /// It hears that what it had is lost.
    pub(super) fn learn(&mut self, m: usize) {
        if self.members[m].revoke.is_some() || self.members[m].expired.is_empty() {
            return;
        }
        self.members[m].expired.clear();
        for partition in self.members[m].owned.take_all() {
            self.remove(m, &partition, true);
        }
    }

    /// A partition is its dispatcher's no longer. What may be committed for it.
    fn remove(&mut self, m: usize, partition: &Partition, cut: bool) -> Option<i64> {
        let member = &mut self.members[m];
        let generation = member.hands.remove(partition)?.generation;
        let mut cut_off = Vec::new();
        for (ticket, running) in &mut member.running {
            if running.entry().partition == *partition && running.generation == generation {
                assert!(cut, "I5: {:?} runs and its partition is drained", running.entry());
                running.cut_off = true;
                cut_off.push(*ticket);
            }
        }
        let watermark = member.scheduler.remove(partition);
        self.excuse(m, &cut_off);
        self.give_back(m, partition);
        watermark
    }

    /// The process ends; another takes its place.
    pub(super) fn crash(&mut self, m: usize) {
        self.counts.add("deaths", 1);
        let group = self.members[m].group;
        self.act_at_the_end(m);
        let next = self.member(group);
        let dead = std::mem::replace(&mut self.members[m], next);
        // The first of its commits may be on its way, the others died with it.
        self.orphans.extend(dead.requests.into_iter().take(1).filter(|request| !request.is_applied()));
        let owners = &self.groups[group].owners;
        let left: Vec<_> = owners
            .iter()
            .filter(|(_, owner)| owner.life == dead.life)
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in left {
            self.groups[group].owners.remove(&partition);
            self.excuse_uncommitted(group, &partition);
        }
        if !self.faults.rebalances {
            self.assign_all();
        }
    }
}
