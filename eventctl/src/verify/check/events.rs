//! What was said is published, in order; what was published is handled, in order, or a dead letter; and every dead letter
//! is accounted for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use event_runtime::Origin;
use jiff::Timestamp;
use shared_events::{
    EventId, OrderId,
    topics::{GROUPS, dead_letter_topic},
};

use super::{Case, Report, listed, stands};
use crate::verify::facts::{EventRecord, Fate, InboxRow, OutboxTable};

/// The class of a record that failed at once: no handler could read it, or one said that it never will.
const REJECTED: &str = "rejected";

pub(super) fn check(case: &Case<'_>, report: &mut Report) {
    report.counts.records = case.facts.records.len() as u64;
    report.counts.duplicates = (case.facts.records.len() - case.first.len()) as u64;
    outbox(case, report);
    one_partition_a_key(case, report);
    first_things_first(case, report);
    for group in GROUPS {
        handled(case, group.name, report);
    }
    letters(case, report);
}

fn outbox(case: &Case<'_>, report: &mut Report) {
    for row in &case.facts.outbox {
        let subject = format!("{}'s {} for {}", row.service, row.event_id, row.topic);
        let order = row.key.parse().ok();
        match row.table {
            OutboxTable::Poison => {
                let reason = row.reason.as_deref().unwrap_or("no reason given");
                report.violation_of("outbox-empty", order, subject, "published", format!("set aside: {reason}"));
            }
            OutboxTable::Delayed if row.due_at >= case.settled => report.counts.outbox_delayed += 1,
            OutboxTable::Due if row.due_at >= case.settled => {}
            OutboxTable::Due | OutboxTable::Delayed => {
                report.violation_of(
                    "outbox-empty",
                    order,
                    subject,
                    "published",
                    format!("waiting since {}", row.due_at),
                );
            }
        }
    }
}

/// Without this there is no order per key.
fn one_partition_a_key(case: &Case<'_>, report: &mut Report) {
    let mut partitions = BTreeMap::<(&str, OrderId), BTreeSet<i32>>::new();
    for record in &case.facts.records {
        if let Some(key) = record.key {
            partitions.entry((&record.origin.topic, key)).or_default().insert(record.origin.partition);
        }
    }
    for ((topic, key), partitions) in partitions.iter().filter(|(_, partitions)| partitions.len() > 1) {
        report.violation_of("order-per-key", Some(*key), *topic, "one partition", listed(partitions));
    }
}

/// Of one key, what another event presumes stands before it.
fn first_things_first(case: &Case<'_>, report: &mut Report) {
    const BEFORE: [(&str, &str); 4] = [
        ("order.created", "order.completed"),
        ("order.created", "order.cancelled"),
        ("stock.reserved", "stock.released"),
        ("stock.reserved", "stock.committed"),
    ];
    for ((topic, key), events) in &case.by_key {
        for (early, late) in BEFORE {
            let at = |wanted: &str| events.iter().position(|event| event.event_type == wanted);
            if let (Some(first), Some(second)) = (at(early), at(late))
                && second < first
            {
                let found = listed([stands(events[second]), stands(events[first])]);
                report.violation_of("order-per-key", Some(*key), *topic, format!("{early} before {late}"), found);
            }
        }
    }
}

/// Every event of a type that `group` handles is handled or dead, and the events of a key were handled in their order.
fn handled(case: &Case<'_>, group: &str, report: &mut Report) {
    let nothing = HashMap::new();
    let inbox = case.facts.inbox.get(group).unwrap_or(&nothing);
    // Which types a group handles is seen from its inbox. A type of which it handled not one event is missed here, and
    // shows in what the events should have done: money, stock, mails, the order's own end.
    let types: HashSet<&str> =
        inbox.keys().filter_map(|event| case.first.get(event)).map(|record| record.event_type.as_str()).collect();
    let letters = case.facts.letters.iter().filter(|letter| letter.group == group);
    let died: HashSet<&Origin> = letters.clone().filter_map(|letter| letter.original.as_ref()).collect();
    let dead: HashSet<EventId> = letters.filter_map(|letter| letter.event).collect();
    for ((topic, key), events) in &case.by_key {
        let mut latest: Option<(&EventRecord, Timestamp)> = None;
        for event in events.iter().copied().filter(|event| types.contains(event.event_type.as_str())) {
            match inbox.get(&event.event) {
                // A replay handles a dead letter after its successors: that is what it is for.
                Some(_) if dead.contains(&event.event) => {}
                Some(InboxRow { handled_at, .. }) => {
                    report.counts.handled += 1;
                    if let Some((before, at)) = latest
                        && before.origin.partition == event.origin.partition
                        && handled_at.saturating_add(case.limits.clock_skew).is_ok_and(|time| time < at)
                    {
                        report.violation_of(
                            "order-per-key",
                            Some(*key),
                            format!("{group} on {topic}"),
                            format!("{} handled first", stands(before)),
                            format!("{at}, and {} at {handled_at}", stands(event)),
                        );
                    }
                    latest = Some((event, *handled_at));
                }
                None if !died.contains(&event.origin) && passed(case, group, event) => report.violation_of(
                    "nothing-lost",
                    Some(*key),
                    group,
                    format!("{} handled, or a dead letter", stands(event)),
                    "neither, and the group is past it",
                ),
                None => {}
            }
        }
    }
}

/// Whether `group` says that it is done with `event`, long enough before the exports, about an order at rest.
fn passed(case: &Case<'_>, group: &str, event: &EventRecord) -> bool {
    let Origin { topic, partition, offset } = &event.origin;
    let committed = case.facts.committed.get(&(group.to_owned(), topic.to_string(), *partition));
    let at_rest = event.key.is_some_and(|key| case.has_ended(key));
    at_rest && event.time < case.settled && committed.is_some_and(|committed| offset < committed)
}

fn letters(case: &Case<'_>, report: &mut Report) {
    let mut known = HashSet::new();
    for letter in &case.facts.letters {
        report.counts.dead_letters += 1;
        let fate = letter.event.and_then(|event| case.facts.inbox.get(&letter.group)?.get(&event));
        known.extend(letter.event.map(|event| (letter.group.as_str(), event)));
        match fate.map(|row| row.fate) {
            Some(Fate::Dead) => {}
            Some(Fate::Handled) => report.counts.dead_letters_handled += 1,
            // Without an envelope, or with data that are no event, nobody could note it.
            None if letter.event.is_none() || letter.class == REJECTED => report.counts.dead_letters_unreadable += 1,
            None => report.violation_of(
                "dead-letter-accounted-for",
                letter.key,
                format!("{} {}", letter.group, letter.origin),
                "dead or handled in the group's inbox",
                "neither",
            ),
        }
    }
    for (group, rows) in &case.facts.inbox {
        let dead = rows.iter().filter(|(_, row)| row.fate == Fate::Dead && row.handled_at < case.settled);
        for (event, _) in dead.filter(|(event, _)| !known.contains(&(group.as_str(), **event))) {
            // Without its record nobody knows in which dead-letter topic to look; the record is then past retention.
            let Some(record) = case.first.get(event) else { continue };
            let topic = dead_letter_topic(&record.origin.topic, group);
            if !case.facts.trimmed.contains(&topic) {
                report.violation_of(
                    "dead-letter-accounted-for",
                    record.key,
                    format!("{group} {}", stands(record)),
                    format!("its dead letter in {topic}"),
                    "none",
                );
            }
        }
    }
}
