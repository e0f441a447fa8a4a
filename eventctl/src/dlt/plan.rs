//! What a replay is going to do with each dead letter.

use std::collections::{BTreeMap, HashMap};

use event_runtime::{Origin, inbox};
use jiff::Timestamp;
use serde::Serialize;
use shared_events::topics::{TOPICS, quarantine_topic};

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
    /// A letter that was replayed so often goes to quarantine. None: it comes from there.
    pub max_replays: Option<u32>,
    /// Also what was replayed before.
    pub again: bool,
    /// Another topic than the original one.
    pub to: Option<String>,
    pub now: Timestamp,
}

impl Rules {
    /// What was handled before this moment, inboxes may have forgotten.
    fn remembered_since(&self, topic: &str) -> Timestamp {
        let declared = TOPICS.iter().find(|declared| declared.name == topic);
        let kept = declared.map(|topic| inbox::kept_for(topic.retention));
        kept.and_then(|kept| self.now.checked_sub(kept).ok()).unwrap_or(Timestamp::MIN)
    }
}

impl Kind {
    /// The same letters, on their way to quarantine.
    pub fn into_quarantine(self) -> Kind {
        let to = quarantine_topic(&self.topic, &self.group);
        Kind { action: Action::Quarantine, to, ..self }
    }
}

#[derive(Debug, Default)]
pub struct Plan {
    /// What is done with the letter at this place.
    pub steps: HashMap<Origin, Kind>,
    pub progress: Progress,
    pub counts: Counts,
    /// Letters that are acted on and so old that inboxes have forgotten their events.
    pub forgotten: u64,
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
        let mut plan = Plan { progress: Progress::new(&letters.done), ..Plan::default() };
        for letter in &letters.letters {
            match (letter.state, letter.fits) {
                (State::Replayed, true) if rules.again => plan.act(letter, rules),
                (State::Replayed, fits) => {
                    plan.counts.replayed_before += u64::from(fits);
                    plan.progress.expect(&letter.place, true);
                }
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
        let kind = Kind {
            topic: dead.original.topic.to_string(),
            group: dead.group.clone(),
            error_class: dead.error_class.clone(),
            action: Action::Replay,
            to: rules.to.clone().unwrap_or_else(|| dead.original.topic.to_string()),
        };
        let too_often = rules.max_replays.is_some_and(|max| dead.replay_count >= max);
        let kind = if too_often { kind.into_quarantine() } else { kind };
        if letter.time.is_some_and(|time| time < rules.remembered_since(&kind.topic)) {
            self.forgotten += 1;
        }
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
            let begin = begins.entry((place.topic.to_string(), place.partition)).or_insert(place.offset);
            *begin = place.offset.min(*begin);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use event_runtime::consumer::dead_letter::DeadLetter;
    use jiff::SignedDuration;

    use super::*;

    const DAY: i64 = 24;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn letter(offset: i64, state: State, fits: bool, replay_count: u32, days_old: i64) -> Letter {
        let original = Origin { topic: "orders".into(), partition: 3, offset: 42 };
        Letter {
            place: Origin { topic: "orders.g.dlt".into(), partition: 0, offset },
            dead: DeadLetter {
                original,
                group: "g".to_owned(),
                error_class: "rejected".to_owned(),
                error: String::new(),
                attempts: 1,
                failed_at: None,
                replay_count,
                value_omitted: false,
            },
            event_id: None,
            state,
            fits,
            time: Some(now() - SignedDuration::from_hours(days_old * DAY)),
        }
    }

    fn plan(letters: Vec<Letter>, rules: &Rules) -> Plan {
        Plan::new(&Letters { letters, ..Letters::default() }, rules)
    }

    fn rules() -> Rules {
        Rules { max_replays: Some(3), again: false, to: None, now: now() }
    }

    #[test]
    fn every_letter_is_accounted_for() {
        let letters = || {
            vec![
                letter(0, State::Replayed, true, 0, 1),
                letter(1, State::Replayed, false, 0, 1),
                letter(2, State::Superseded, true, 0, 1),
                letter(3, State::Waiting, true, 2, 1),
                letter(4, State::Waiting, true, 3, 1),
                letter(5, State::Waiting, false, 0, 1),
            ]
        };
        let acted = |plan: &Plan| {
            let mut acted: Vec<_> = plan.steps.iter().map(|(place, kind)| (place.offset, kind.action)).collect();
            acted.sort_unstable();
            acted
        };
        let once = plan(letters(), &rules());
        assert_eq!(acted(&once), [(3, Action::Replay), (4, Action::Quarantine)]);
        let counts = Counts { not_selected: 1, replayed_before: 1, superseded: 1, unreadable: 0 };
        assert_eq!(once.counts, counts);
        let again = plan(letters(), &Rules { again: true, max_replays: None, ..rules() });
        assert_eq!(acted(&again), [(0, Action::Replay), (3, Action::Replay), (4, Action::Replay)]);
    }

    #[test]
    fn what_inboxes_have_forgotten_is_counted() {
        let days = [1, 13, 15, 27];
        let letters = days.iter().map(|&days| letter(days, State::Waiting, true, 0, days)).collect();
        assert_eq!(plan(letters, &rules()).forgotten, 2, "the topic keeps seven days, inboxes remember fourteen");
    }
}
