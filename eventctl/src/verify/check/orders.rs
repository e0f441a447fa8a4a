//! Every order ends, once: in its service's row and in the topic alike.

use std::collections::BTreeSet;

use shared_events::{Event, OrderCancelled, OrderCompleted, OrderCreated, topics::ORDERS};

use super::{Case, Report, Standing, listed, stands};
use crate::verify::facts::{EventRecord, OrderState};

pub(super) fn check(case: &Case<'_>, report: &mut Report) {
    for order in case.facts.orders.values() {
        report.counts.orders += 1;
        match order.state {
            OrderState::Completed => report.counts.completed += 1,
            OrderState::Cancelled => report.counts.cancelled += 1,
            OrderState::Pending => {}
        }
        match case.standing(order) {
            Standing::Open => report.counts.open += 1,
            Standing::Settling => report.counts.settling += 1,
            Standing::Overdue => report.violation(
                "order-ends",
                order.order_id,
                format!("an end by {}", order.expires_at),
                format!("pending at {}", case.facts.at),
            ),
            Standing::Ended => report.counts.judged += 1,
        }
    }
    for order in case.ended() {
        let events = case.events(ORDERS.name, order.order_id);
        if events.is_empty() && case.may_be_gone(ORDERS.name, order) {
            report.counts.beyond_retention += 1;
            continue;
        }
        let expected = match order.state {
            OrderState::Completed => OrderCompleted::TYPE,
            OrderState::Cancelled | OrderState::Pending => OrderCancelled::TYPE,
        };
        let terminal: Vec<_> = events.iter().filter(|event| is_terminal(event)).collect();
        if !matches!(terminal[..], [only] if only.event_type == expected) {
            let found = listed(terminal.iter().map(|event| stands(event)));
            report.violation("one-terminal-event", order.order_id, format!("one {expected}"), found);
        }
        let created = events.iter().filter(|event| event.event_type == OrderCreated::TYPE).count();
        if created != 1 && !case.may_be_gone(ORDERS.name, order) {
            report.violation(
                "one-terminal-event",
                order.order_id,
                format!("one {}", OrderCreated::TYPE),
                format!("{created} of them"),
            );
        }
    }
    unknown(case, report);
}

fn is_terminal(event: &EventRecord) -> bool {
    event.event_type == OrderCompleted::TYPE || event.event_type == OrderCancelled::TYPE
}

/// Orders that only the topic knows: order-service's database has lost them.
fn unknown(case: &Case<'_>, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for record in case.facts.records.iter().filter(|record| *record.origin.topic == *ORDERS.name) {
        let Some(order) = record.key else { continue };
        let known = case.facts.orders.contains_key(&order);
        if !known && record.time < case.settled && seen.insert(order) {
            report.violation("order-known", order, "a row in order-service", format!("none, but {}", stands(record)));
        }
    }
}
