//! The rules, without I/O: facts in, violations out.
//!
//! An order is judged once it has ended and had time to come to rest. One that is still open before its deadline, or
//! ended a moment ago, is counted and left alone: its facts are not of one moment.

mod events;
mod mails;
mod money;
mod orders;
mod stock;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use event_runtime::Origin;
use jiff::Timestamp;
use serde::Serialize;
use shared_events::{EventId, OrderId, topics};

use super::facts::{EventRecord, Facts, OrderRow, OrderState};

/// How strictly it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What happened so shortly before the exports may still be on its way.
    pub grace: Duration,
    /// By how much the clocks of two instances may differ.
    pub clock_skew: Duration,
    /// How many mails may be more than one an order.
    pub max_extra_mails: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub counts: Counts,
    pub violations: Vec<Violation>,
}

/// How much was looked at, and what is no violation but worth knowing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub orders: u64,
    pub completed: u64,
    pub cancelled: u64,
    /// Ended, and had time to come to rest: these were judged.
    pub judged: u64,
    /// Before their deadline.
    pub open: u64,
    /// Ended so shortly before the exports that they were not judged.
    pub settling: u64,
    /// Older than what the topics still hold: their events were not looked for.
    pub beyond_retention: u64,
    pub charges_kept: u64,
    pub charges_refunded: u64,
    pub mails: u64,
    /// Copies beyond the first of a mail.
    pub extra_mails: u64,
    /// Mails that the mail server refused for good.
    pub mails_given_up: u64,
    pub pieces_sold: i64,
    pub records: u64,
    /// Records whose event stands in its topic more than once.
    pub duplicates: u64,
    /// Events whose handling, by each group that handles their type, was found.
    pub handled: u64,
    pub dead_letters: u64,
    /// Of these, events that were handled after all.
    pub dead_letters_handled: u64,
    /// Of these, records that no handler could read.
    pub dead_letters_unreadable: u64,
    /// Events in an outbox whose time has not come.
    pub outbox_delayed: u64,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// The order it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// What it is about where that is no order, or not the order alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub expected: String,
    pub found: String,
}

/// Checks every rule.
pub fn check(facts: &Facts, limits: &Limits) -> Report {
    let case = Case::new(facts, limits);
    let mut report = Report::default();
    orders::check(&case, &mut report);
    money::check(&case, &mut report);
    mails::check(&case, &mut report);
    stock::check(&case, &mut report);
    events::check(&case, &mut report);
    report
}

/// The facts with what every rule asks of them.
struct Case<'a> {
    facts: &'a Facts,
    limits: &'a Limits,
    /// What is older than this had time to come to rest.
    settled: Timestamp,
    /// For each event its first record.
    first: HashMap<EventId, &'a EventRecord>,
    /// First records, by topic and key in the order of their offsets.
    by_key: BTreeMap<(&'a str, OrderId), Vec<&'a EventRecord>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not ended, its deadline ahead.
    Open,
    /// Not ended, its deadline long past.
    Overdue,
    /// Ended a moment ago.
    Settling,
    /// Ended, and had time to come to rest.
    Ended,
}

impl<'a> Case<'a> {
    fn new(facts: &'a Facts, limits: &'a Limits) -> Case<'a> {
        let mut first = HashMap::<EventId, &EventRecord>::new();
        let mut by_key = BTreeMap::<_, Vec<_>>::new();
        for record in &facts.records {
            // Within a partition records come by offset; a copy in another partition is the later one.
            let known = first.entry(record.event).or_insert(record);
            if (record.time, record.origin.offset) < (known.time, known.origin.offset) {
                *known = record;
            }
        }
        for record in first.values() {
            if let Some(key) = record.key {
                by_key.entry((&*record.origin.topic, key)).or_default().push(*record);
            }
        }
        for records in by_key.values_mut() {
            records.sort_by_key(|record| (record.origin.partition, record.origin.offset));
        }
        let settled = facts.at.checked_sub(limits.grace).unwrap_or(Timestamp::MIN);
        Case { facts, limits, settled, first, by_key }
    }

    fn standing(&self, order: &OrderRow) -> Standing {
        match (order.state, order.ended_at) {
            (OrderState::Pending, _) if order.expires_at < self.settled => Standing::Overdue,
            (OrderState::Pending, _) => Standing::Open,
            (_, Some(ended)) if ended <= self.settled => Standing::Ended,
            // An end without its time is as good as one that was just written.
            (_, Some(_) | None) => Standing::Settling,
        }
    }

    /// Orders to judge.
    fn ended(&self) -> impl Iterator<Item = &'a OrderRow> {
        self.facts.orders.values().filter(|order| self.standing(order) == Standing::Ended)
    }

    /// Whether `order` is one to judge.
    fn has_ended(&self, order: OrderId) -> bool {
        self.facts.orders.get(&order).is_some_and(|order| self.standing(order) == Standing::Ended)
    }

    /// The distinct events of `order` on `topic`, in their order.
    fn events(&self, topic: &'a str, order: OrderId) -> &[&'a EventRecord] {
        self.by_key.get(&(topic, order)).map_or(&[], Vec::as_slice)
    }

    /// Whether `topic` may have dropped what it held about `order`.
    fn may_be_gone(&self, topic: &str, order: &OrderRow) -> bool {
        let declared = topics::TOPICS.iter().find(|known| known.name == topic);
        let retention = declared.map_or(Duration::ZERO, |topic| topic.retention);
        self.facts.trimmed.contains(topic)
            || order.created_at.checked_add(retention).is_ok_and(|until| until < self.facts.at)
    }
}

impl Report {
    fn violation(&mut self, rule: &'static str, order: OrderId, expected: impl Into<String>, found: impl Into<String>) {
        self.violations.push(Violation {
            rule,
            order: Some(order),
            subject: None,
            expected: expected.into(),
            found: found.into(),
        });
    }

    fn violation_of(
        &mut self,
        rule: &'static str,
        order: Option<OrderId>,
        subject: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.violations.push(Violation {
            rule,
            order,
            subject: Some(subject.into()),
            expected: expected.into(),
            found: found.into(),
        });
    }
}

/// `a, b and c`, or `none`.
fn listed<T: std::fmt::Display>(things: impl IntoIterator<Item = T>) -> String {
    let things: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    match things.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// An event and where it stands.
fn stands(record: &EventRecord) -> String {
    let Origin { topic, partition, offset } = &record.origin;
    format!("{} at {topic}[{partition}]@{offset}", record.event_type)
}

#[cfg(test)]
mod tests;
