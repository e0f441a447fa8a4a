//! Every order that ended has its mail at the mail server; more than one copy is told from another mail by its Message-ID.

use std::collections::{BTreeMap, BTreeSet};

use shared_events::{EventId, OrderId, topics::ORDERS};

use super::{Case, Report, listed};
use crate::verify::facts::OrderState;

pub(super) fn check(case: &Case<'_>, report: &mut Report) {
    let mut mails = BTreeMap::<OrderId, BTreeMap<&str, u64>>::new();
    for mail in &case.facts.mails {
        report.counts.mails += 1;
        if let Some(order) = mail.order {
            *mails.entry(order).or_default().entry(mail.message_id.as_str()).or_default() += 1;
        }
    }
    let refused: BTreeSet<OrderId> =
        case.facts.mail_rows.iter().filter(|mail| mail.state == "failed").map(|mail| mail.order_id).collect();
    report.counts.mails_given_up = refused.len() as u64;
    for order in case.ended() {
        match mails.get(&order.order_id) {
            Some(copies) if copies.len() > 1 => {
                report.violation("one-mail", order.order_id, "one Message-ID on all its mails", listed(copies.keys()))
            }
            Some(copies) => told_of_the_end(case, order.order_id, copies, report),
            // Its dead letter is another rule's.
            None if refused.contains(&order.order_id) => {}
            None => report.violation("one-mail", order.order_id, "a mail", "none at the mail server"),
        }
    }
    let unasked = |order: &OrderId| match case.facts.orders.get(order) {
        Some(order) => order.state == OrderState::Pending && case.facts.at < order.expires_at,
        None => false,
    };
    for order in mails.keys().filter(|order| unasked(order)) {
        // It may have ended after the export; then its end stands in the topic, later than the export.
        let ended = case.events(ORDERS.name, *order).iter().any(|event| event.event_type != "order.created");
        if !ended {
            report.violation("one-mail", *order, "no mail before the order ends", "a mail");
        }
    }
    extra(&mails, case, report);
}

/// A Message-ID is made of the id of the event the mail tells of.
fn told_of_the_end(case: &Case<'_>, order: OrderId, copies: &BTreeMap<&str, u64>, report: &mut Report) {
    for message_id in copies.keys() {
        let Some(event) = message_id.split('@').next().and_then(|id| id.parse::<EventId>().ok()) else { continue };
        let Some(record) = case.first.get(&event) else { continue };
        let ended = case.facts.orders.get(&order).map_or("", |order| order.state.name());
        if record.event_type != format!("order.{ended}") {
            report.violation(
                "one-mail",
                order,
                format!("a mail about order.{ended}"),
                format!("{message_id}, about {}", record.event_type),
            );
        }
    }
}

fn extra(mails: &BTreeMap<OrderId, BTreeMap<&str, u64>>, case: &Case<'_>, report: &mut Report) {
    let extra: u64 = mails.values().flat_map(BTreeMap::values).map(|copies| copies - 1).sum();
    report.counts.extra_mails = extra;
    if let Some(most) = case.limits.max_extra_mails.filter(|most| extra > *most) {
        let orders: Vec<_> = mails
            .iter()
            .filter(|(_, copies)| copies.values().any(|copies| *copies > 1))
            .map(|(order, _)| order)
            .collect();
        report.violation_of(
            "extra-mails",
            None,
            format!("orders {}", listed(orders.iter().take(10))),
            format!("at most {most} copies beyond the first"),
            extra.to_string(),
        );
    }
}
