//! What a replay is going to do with each dead letter.

use std::collections::{BTreeMap, HashMap};

use event_runtime::Origin;
use serde::Serialize;
use shared_events::topics::quarantine_topic;

use super::{
    letters::{Letter, Letters, State},
    progress::Progress,
};

/// What is done with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Its record goes back to its topic.
    Replay,
    /// The letter goes to the quarantine topic: it was replayed often enough.
    Quarantine,
}

/// Letters of one kind with one destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kind {
    pub topic: String,
    pub group: String,
    pub error_class: String,
    pub action: Action,
    pub to: String,
}

/// What a person may decide about a replay.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A letter that was replayed so often goes to quarantine.
    pub max_replays: u32,
    /// Also what was replayed before.
    pub again: bool,
    /// Another topic than the original one.
    pub to: Option<String>,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// What is done with the letter at this place.
    pub steps: HashMap<Origin, Kind>,
    pub progress: Progress,
    pub counts: Counts,
}

/// What is not done, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Letters that wait and were not asked for.
    pub not_selected: u64,
    /// Letters that fit and were replayed before.
    pub replayed_before: u64,
    /// Letters that fit and that a later letter of the same event has replaced.
    pub superseded: u64,
    /// Records that are no dead letters.
    pub unreadable: u64,
}

impl Plan {
    pub fn new(letters: &Letters, rules: &Rules) -> Plan {
        let mut plan = Plan { progress: Progress::new(&letters.positions), ..Plan::default() };
        for letter in &letters.letters {
            match (letter.state, letter.fits) {
                (State::Replayed, true) if rules.again => plan.act(letter, rules),
                (State::Replayed, fits) => plan.counts.replayed_before += u64::from(fits),
                (State::Superseded, fits) => {
                    plan.counts.superseded += u64::from(fits);
                    plan.progress.expect(&letter.place, true);
                }
                (State::Waiting, true) => plan.act(letter, rules),
                (State::Waiting, false) => {
                    plan.counts.not_selected += 1;
                    plan.progress.expect(&letter.place, false);
                }
            }
        }
        for place in &letters.unreadable {
            // Nothing can ever be done with them, so they are not waited for.
            plan.counts.unreadable += 1;
            plan.progress.expect(place, true);
        }
        plan
    }

    fn act(&mut self, letter: &Letter, rules: &Rules) {
        let dead = &letter.dead;
        // A letter without its record's value would put back something else.
        let action = match dead.replay_count >= rules.max_replays || dead.value_omitted {
            true => Action::Quarantine,
            false => Action::Replay,
        };
        let to = match action {
            Action::Replay => rules.to.clone().unwrap_or_else(|| dead.original.topic.clone()),
            Action::Quarantine => quarantine_topic(&dead.original.topic, &dead.group),
        };
        let kind = Kind {
            topic: dead.original.topic.clone(),
            group: dead.group.clone(),
            error_class: dead.error_class.clone(),
            action,
            to,
        };
        self.steps.insert(letter.place.clone(), kind);
        self.progress.expect(&letter.place, false);
    }

    /// How many letters of each kind.
    pub fn kinds(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for kind in self.steps.values() {
            *kinds.entry(kind.clone()).or_default() += 1;
        }
        kinds
    }

    /// Where reading has to begin: at the first letter of each partition that something is done with.
    pub fn begins(&self) -> BTreeMap<(String, i32), i64> {
        let mut begins = BTreeMap::new();
        for place in self.steps.keys() {
            let begin = begins.entry((place.topic.clone(), place.partition)).or_insert(place.offset);
            *begin = place.offset.min(*begin);
        }
        begins
    }
}
