//! Offsets on their way to the broker.

use event_runtime::scheduler::{Generation, Partition};
use rand::RngExt;

use super::World;

/// A commit that the broker has not answered.
pub(super) struct Request {
    number: u64,
    group: usize,
    offsets: Vec<Wanted>,
    /// Carried out, and not answered yet.
    applied: bool,
}

struct Wanted {
    partition: Partition,
    offset: i64,
    /// The life and the generation of the sender's, where it was the partition's owner.
    owner: Option<(u64, Generation)>,
}

/// A regular commit, as the poll thread knows it.
pub(super) struct Sent {
    number: u64,
    offsets: Vec<(Partition, i64)>,
    answer: Option<bool>,
}

impl Request {
    pub(super) fn is_applied(&self) -> bool {
        self.applied
    }
}

impl World {
    /// The dispatcher says how far its partitions are handled.
    pub(super) fn tell_poll_thread(&mut self, m: usize) {
        for (partition, generation, offset) in self.members[m].scheduler.new_watermarks() {
            let member = &mut self.members[m];
            assert_eq!(member.hands[&partition].generation, generation, "only what is assigned is committed");
            member.wishes.insert(partition.clone(), (generation, offset));
            self.got_to(m, &partition, offset);
        }
    }

    /// The poll thread hears that and commits, once it knows what became of the commit before.
    pub(super) fn commit(&mut self, m: usize) {
        let member = &mut self.members[m];
        if member.revoke.is_some() {
            return;
        }
        for (partition, (generation, offset)) in std::mem::take(&mut member.wishes) {
            member.owned.wish(&partition, generation, offset);
        }
        if let Some(sent) = member.sent.take() {
            match sent.answer {
                None => return member.sent = Some(sent),
                Some(true) => {}
                Some(false) => member.owned.commit_again(&sent.offsets),
            }
        }
        let offsets = member.owned.take_uncommitted();
        if !offsets.is_empty() {
            let number = self.request(m, &offsets);
            self.members[m].sent = Some(Sent { number, offsets, answer: None });
        }
    }

    /// What is committed first is sent first.
    pub(super) fn request(&mut self, m: usize, offsets: &[(Partition, i64)]) -> u64 {
        self.counts.add("commits", 1);
        let number = self.counts.of("commits");
        let member = &self.members[m];
        let owners = &self.groups[member.group].owners;
        let offsets = offsets.iter().map(|(partition, offset)| {
            let owner = owners.get(partition).map(|owner| (owner.life, owner.generation));
            let ours = owner.is_some_and(|(life, _)| life == member.life) || member.expired.contains(partition);
            assert!(ours, "I5: {partition} is committed after it was given back");
            let owner = owner.filter(|(life, _)| *life == member.life);
            Wanted { partition: partition.clone(), offset: *offset, owner }
        });
        let request = Request { number, group: member.group, offsets: offsets.collect(), applied: false };
        self.members[m].requests.push_back(request);
        number
    }

    /// The broker gets to a member's next commit.
    pub(super) fn answer_commit(&mut self, m: usize) {
        if !self.orphans.is_empty() && self.random.random_bool(0.3) {
            let late = self.orphans.remove(0);
            self.apply(&late);
        }
        let Some(mut request) = self.members[m].requests.pop_front() else { return };
        let fate = if self.faults.commits && !self.settling { self.random.random_range(0..10) } else { 9 };
        if fate == 0 && !request.applied {
            self.counts.add("refused commits", 1);
            return self.answered(m, request.number, false);
        }
        if !request.applied {
            self.apply(&request);
            request.applied = true;
        }
        match fate {
            0 | 1 => {
                self.counts.add("lost answers", 1);
                self.answered(m, request.number, false);
            }
            2 => self.members[m].requests.push_front(request),
            _ => self.answered(m, request.number, true),
        }
    }

    fn answered(&mut self, m: usize, number: u64, well: bool) {
        let member = &mut self.members[m];
        if let Some(sent) = member.sent.as_mut().filter(|sent| sent.number == number) {
            sent.answer = Some(well);
        } else if let Some(revoke) = &mut member.revoke {
            revoke.commit_answered(number, well);
        }
    }

    /// The broker does not ask whose partition it is.
    fn apply(&mut self, request: &Request) {
        for Wanted { partition, offset, owner: sender } in &request.offsets {
            let group = &mut self.groups[request.group];
            let lost = self.log[partition]
                .iter()
                .find(|entry| entry.offset < *offset && !group.done[partition].contains(&entry.offset));
            assert!(lost.is_none(), "I1: committed {offset} before {lost:?} was done");
            let owner = group.owners.get_mut(partition);
            match owner.filter(|owner| Some((owner.life, owner.generation)) == *sender) {
                Some(owner) => {
                    assert!(*offset >= owner.reached, "I5: its own commit takes {partition} back to {offset}");
                    owner.reached = *offset;
                }
                None => self.counts.add("commits of old owners", 1),
            }
            let committed = group.committed.insert(partition.clone(), *offset);
            if committed > Some(*offset) {
                self.counts.add("taken back", 1);
                self.excuse_uncommitted(request.group, partition);
            }
        }
    }
}
