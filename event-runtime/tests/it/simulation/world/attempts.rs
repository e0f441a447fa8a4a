//! Attempts: they start, act on the world, and report that, at once or later. Those that share a transaction do so together.

use std::{rc::Rc, time::Duration};

use event_runtime::{
    HandlerError,
    inbox::Fate,
    scheduler::{Generation, Lane, Outcome, Start, Task, Ticket, Verdict},
};
use rand::RngExt;

use super::{
    World,
    log::{Entry, Job, Nature},
};

pub(super) struct Running {
    pub(super) job: Rc<Job>,
    pub(super) attempt: u32,
    pub(super) bury: bool,
    pub(super) generation: Generation,
    pub(super) began_in_outage: bool,
    pub(super) careful: bool,
    /// Cancelled, for its partition was taken away; which may come too late.
    pub(super) cut_off: bool,
}

/// What shares a transaction, or one attempt by itself.
pub(super) struct Batch {
    tickets: Vec<Ticket>,
    /// Once it has acted.
    ended: Option<Ended>,
}

struct Ended {
    outcomes: Vec<Outcome>,
    contended: bool,
}

impl Running {
    pub(super) fn entry(&self) -> &Entry {
        &self.job.entry
    }
}

impl World {
    /// Takes in what starts, with all that the scheduler lets share its transaction.
    pub(super) fn start_batch(&mut self, m: usize, first: Start<Rc<Job>>) {
        let member = &mut self.members[m];
        let mut tickets = vec![first.ticket];
        let joined = member.scheduler.join(first.ticket);
        assert!(joined.len() < member.batching.0.max(1), "a batch of {} records", joined.len() + 1);
        let shared = !joined.is_empty();
        self.counts.add("shared", u64::from(shared));
        self.started(m, first, shared, &[]);
        for start in joined {
            let ticket = start.ticket;
            self.started(m, start, shared, &tickets);
            tickets.push(ticket);
        }
        self.members[m].batches.push(Batch { tickets, ended: None });
        assert!(self.members[m].batches.len() <= super::CONCURRENCY, "more batches than allowed");
    }

    /// An attempt starts, in one batch with those that come `before` it.
    fn started(&mut self, m: usize, start: Start<Rc<Job>>, shared: bool, before: &[Ticket]) {
        self.counts.add("starts", 1);
        self.check_start(m, &start, shared, before);
        let Start { ticket, payload: job, task, attempt, careful } = start;
        if careful {
            self.note_alone(m, &job.entry, Some(job.entry.offset));
        }
        let bury = matches!(task, Task::Bury(_));
        let member = &mut self.members[m];
        let hand = member.hands.get_mut(&job.entry.partition).expect("only what is assigned starts");
        hand.begun = hand.begun.max(Some(job.entry.offset));
        hand.due.remove(&job.entry.offset);
        let generation = hand.generation;
        let began_in_outage = !bury && member.declared.contains(&job.entry.handler);
        let running = Running { job, attempt, bury, generation, began_in_outage, careful, cut_off: false };
        member.running.insert(ticket, running);
    }

    /// One of the batches acts, or what one did before is told.
    pub(super) fn finish_one(&mut self, m: usize) {
        let batches = self.members[m].batches.len();
        if batches == 0 {
            return;
        }
        let pick = self.random.random_range(0..batches);
        if self.members[m].batches[pick].ended.is_none() {
            let tickets = self.members[m].batches[pick].tickets.clone();
            if let Some(killer) =
                tickets.iter().map(|ticket| &self.members[m].running[ticket]).find(|it| self.kills(m, it))
            {
                let careful = killer.careful;
                return self.die(m, careful);
            }
            self.members[m].batches[pick].ended = Some(self.act(m, &tickets));
            if self.random.random_bool(0.2) {
                self.counts.add("late results", 1);
                return;
            }
        }
        let Batch { tickets, ended } = self.members[m].batches.swap_remove(pick);
        let Ended { mut outcomes, contended } = ended.expect("it has acted");
        if self.is_cut_off(m, &tickets) && self.random.random_bool(0.2) {
            // Cancelled after its commit, and before it could say so.
            outcomes = cancelled(tickets.len());
            self.excuse(m, &tickets);
        }
        if tickets.len() > 1 {
            let scheduler = &mut self.members[m].scheduler;
            match outcomes[0] {
                _ if contended => scheduler.batch_contended(tickets[0]),
                Outcome::Handled { .. } => {
                    scheduler.batch_committed(tickets.len(), Duration::from_millis(self.random.random_range(0..40)));
                }
                _ => scheduler.batch_failed(),
            }
        }
        for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
            self.finish(m, ticket, outcome);
        }
    }

    /// What still runs in a process that ends: a transaction may be on its way to the database.
    pub(super) fn act_at_the_end(&mut self, m: usize) {
        for batch in std::mem::take(&mut self.members[m].batches) {
            let kills = batch.tickets.iter().any(|ticket| self.kills(m, &self.members[m].running[ticket]));
            if batch.ended.is_none() && !kills && self.random.random_bool(0.2) {
                self.act(m, &batch.tickets);
            }
        }
    }

    fn is_cut_off(&self, m: usize, tickets: &[Ticket]) -> bool {
        tickets.iter().any(|ticket| self.members[m].running[ticket].cut_off)
    }

    /// All of its records are handled, or all are undone because of one, or for no reason of theirs.
    fn act(&mut self, m: usize, tickets: &[Ticket]) -> Ended {
        let contended = tickets.len() > 1 && self.random.random_bool(0.02);
        if self.is_cut_off(m, tickets) && self.random.random_bool(0.5) {
            return Ended { outcomes: cancelled(tickets.len()), contended: false };
        }
        if let [ticket] = tickets {
            let outcome =
                if self.members[m].running[ticket].bury { self.bury(m, *ticket) } else { self.handle(m, *ticket) };
            return Ended { outcomes: vec![outcome], contended: false };
        }
        let failed = tickets.iter().any(|ticket| self.answer(m, *ticket).is_err());
        if failed || self.random.random_bool(0.05) {
            return Ended { outcomes: tickets.iter().map(|_| Outcome::RolledBack).collect(), contended };
        }
        Ended { outcomes: tickets.iter().map(|ticket| self.store(m, *ticket)).collect(), contended }
    }

    fn handle(&mut self, m: usize, ticket: Ticket) -> Outcome {
        match self.answer(m, ticket) {
            Ok(()) => self.store(m, ticket),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// What the handler answers, before any of it is stored.
    fn answer(&self, m: usize, ticket: Ticket) -> Result<(), HandlerError> {
        let Running { job, attempt, .. } = &self.members[m].running[&ticket];
        let entry = &job.entry;
        let outage = self.away.contains(&entry.handler);
        if outage && self.faults.misjudged {
            return Err(HandlerError::retry("cannot"));
        }
        if outage || (entry.nature == Nature::CriesWolf && !self.settling) {
            return Err(HandlerError::unavailable("away"));
        }
        if self.is_duplicate(m, entry) {
            return Ok(());
        }
        match entry.nature {
            Nature::FailsTimes(times) if *attempt <= times => Err(HandlerError::retry("not yet")),
            Nature::FailsUntil(until) if self.now < until => Err(HandlerError::retry("not so early")),
            Nature::AlwaysFails => Err(HandlerError::retry("never")),
            Nature::Rejects => Err(HandlerError::reject("bad")),
            _ => Ok(()),
        }
    }

    /// The effect, with its inbox row, or nothing where there is one.
    fn store(&mut self, m: usize, ticket: Ticket) -> Outcome {
        let Running { job, generation, .. } = &self.members[m].running[&ticket];
        let (job, generation) = (job.clone(), *generation);
        let entry = &job.entry;
        let new = !entry.has_inbox() || {
            let inbox = &mut self.groups[self.members[m].group].inbox;
            inbox.record(entry.event, entry.replay, Fate::Handled)
        };
        if new {
            self.check_effect(m, entry);
            self.counts.add("handled by a replay", u64::from(entry.replay > 0));
        } else {
            self.counts.add("duplicates", 1);
        }
        self.is_done(m, entry, generation);
        Outcome::Handled { proves_dependency: new && self.random.random_bool(0.9) }
    }

    /// The dead letter, and then the note that there is one.
    fn bury(&mut self, m: usize, ticket: Ticket) -> Outcome {
        let Running { job, generation, .. } = &self.members[m].running[&ticket];
        let (job, generation) = (job.clone(), *generation);
        let entry = &job.entry;
        if !job.dead_lettered.get() {
            if self.faults.failures && self.random.random_bool(0.3) {
                return Outcome::BuryFailed;
            }
            self.write_letter(m, entry, generation);
            job.dead_lettered.set(true);
        }
        if entry.has_inbox() {
            if self.faults.failures && self.random.random_bool(0.1) {
                return Outcome::BuryFailed;
            }
            self.groups[self.members[m].group].inbox.record(entry.event, entry.replay, Fate::Dead);
        }
        self.is_done(m, entry, generation);
        Outcome::Buried
    }

    pub(super) fn is_duplicate(&self, m: usize, entry: &Entry) -> bool {
        entry.has_inbox() && self.groups[self.members[m].group].inbox.seen(entry.event, entry.replay)
    }

    fn is_done(&mut self, m: usize, entry: &Entry, generation: Generation) {
        self.check_order_of_first_ends(m, entry);
        let owner = self.is_owner(m, &entry.partition, generation);
        let group = &mut self.groups[self.members[m].group];
        group.done.get_mut(&entry.partition).expect("it is in the log").insert(entry.offset);
        if !owner {
            // Whoever owns it now cannot know.
            group.repeatable.insert(entry.place());
        }
    }

    fn finish(&mut self, m: usize, ticket: Ticket, outcome: Outcome) {
        let member = &mut self.members[m];
        let running = member.running.remove(&ticket).expect("it ends once");
        let entry = &running.job.entry;
        let rolled_back = matches!(outcome, Outcome::RolledBack);
        let unavailable = matches!(outcome, Outcome::Failed(HandlerError::Unavailable(_)));
        if matches!(outcome, Outcome::Failed(HandlerError::Retry(_))) {
            let lane = entry.key.clone().map_or(Lane::Record(entry.offset), Lane::Key);
            member.suspects.insert((entry.handler, entry.partition.clone(), lane));
        }
        let rejected = matches!(outcome, Outcome::Failed(HandlerError::Reject(_)));
        let done = matches!(outcome, Outcome::Handled { .. } | Outcome::Buried);
        if running.careful {
            self.note_alone(m, entry, None);
            if done {
                self.groups[self.members[m].group].durable.crashes.remove(&entry.place());
            }
        }
        let member = &mut self.members[m];
        let flooded = member.scheduler.flood().is_some();
        let verdict = member.scheduler.finish(ticket, outcome, self.now, self.random.random());
        self.counts.add("floods", u64::from(!flooded && member.scheduler.flood().is_some()));
        let hand = member.hands.get_mut(&entry.partition).filter(|hand| hand.generation == running.generation);
        assert_eq!(verdict == Verdict::Stale, hand.is_none(), "I5: results of older generations count for nothing");
        let Some(hand) = hand else { return };
        match verdict {
            Verdict::Alone => {
                assert!(rolled_back, "only what was undone runs alone");
                hand.alone.insert(entry.offset);
            }
            Verdict::Retry { pause } => {
                if !running.bury {
                    *hand.failures.entry(entry.offset).or_default() += 1;
                }
                hand.due.insert(entry.offset, self.now + pause);
            }
            Verdict::Unavailable { began } => {
                assert!(unavailable || (self.faults.misjudged && !rejected), "I6: {entry:?} is at fault itself");
                let suspects = member.suspects.iter().filter(|(handler, ..)| *handler == entry.handler).count();
                let enough = suspects >= super::BREAKER.at_least as usize;
                assert!(unavailable || !began || enough, "I6: {suspects} keys failed");
                self.counts.add("misjudged", u64::from(began && !unavailable));
                assert_eq!(began, member.declared.insert(entry.handler), "an outage begins once");
            }
            Verdict::Handled { outage_ended } => {
                assert!(done, "{entry:?} is not done");
                hand.told.insert(entry.offset);
                hand.in_hand.remove(&entry.offset);
                if outage_ended.is_none() {
                    return;
                }
                member.suspects.retain(|(handler, ..)| *handler != entry.handler);
                assert!(member.declared.remove(&entry.handler), "an outage ends that had begun");
                for other in member.running.values_mut().filter(|other| other.entry().handler == entry.handler) {
                    other.began_in_outage = false;
                }
            }
            Verdict::Bury | Verdict::Stale => {}
        }
    }
}

fn cancelled(records: usize) -> Vec<Outcome> {
    let outcome = |_| if records > 1 { Outcome::RolledBack } else { Outcome::Failed(HandlerError::retry("cancelled")) };
    (0..records).map(outcome).collect()
}
