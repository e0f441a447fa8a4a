//! A completed order is charged once, a cancelled one is not or got its money back: in the gateway's own ledger.

use std::collections::BTreeMap;

use shared_events::{Event, OrderId, PaymentRefunded, topics::PAYMENTS};

use super::{Case, Report, listed};
use crate::verify::facts::{Charge, ChargeStatus, OrderRow, OrderState};

pub(super) fn check(case: &Case<'_>, report: &mut Report) {
    let mut charges = BTreeMap::<OrderId, Vec<&Charge>>::new();
    for charge in &case.facts.charges {
        match charge.status {
            ChargeStatus::Succeeded => report.counts.charges_kept += 1,
            ChargeStatus::Refunded => report.counts.charges_refunded += 1,
        }
        let order = charge.idempotency_key.parse::<OrderId>().ok();
        match order.filter(|order| case.facts.orders.contains_key(order)) {
            Some(order) => charges.entry(order).or_default().push(charge),
            None if charge.created_at < case.settled => report.violation_of(
                "charge-known",
                order,
                format!("charge {}", charge.id),
                "an order for every charge",
                format!("{} under the key {}", charge.amount, charge.idempotency_key),
            ),
            None => {}
        }
    }
    for (order, charges) in &charges {
        let kept: Vec<_> = kept(charges).collect();
        if kept.len() > 1 {
            report.violation("charged-once", *order, "at most one charge kept", listed(kept.iter().map(|c| shown(c))));
        }
    }
    for order in case.ended() {
        let charges = charges.get(&order.order_id).map_or(&[][..], Vec::as_slice);
        ledger(order, charges, report);
        said(case, order, charges, report);
        row(case, order, charges, report);
    }
}

fn ledger(order: &OrderRow, charges: &[&Charge], report: &mut Report) {
    let kept: Vec<_> = kept(charges).collect();
    match (order.state, &kept[..]) {
        (OrderState::Completed, []) => report.violation(
            "completed-is-charged",
            order.order_id,
            format!("a charge of {} kept", order.total),
            listed(charges.iter().map(|charge| shown(charge))),
        ),
        (OrderState::Completed, [only]) if only.amount != order.total => {
            report.violation(
                "completed-is-charged",
                order.order_id,
                format!("a charge of {}", order.total),
                shown(only),
            );
        }
        // More than one has been told already.
        (OrderState::Completed, _) | (_, []) => {}
        (_, kept) => report.violation(
            "cancelled-is-not-charged",
            order.order_id,
            "no charge, or a refund",
            listed(kept.iter().map(|charge| shown(charge))),
        ),
    }
}

/// `payment.refunded` is said exactly when the ledger has a refund.
fn said(case: &Case<'_>, order: &OrderRow, charges: &[&Charge], report: &mut Report) {
    let refunded = charges.iter().filter(|charge| charge.status == ChargeStatus::Refunded).count();
    let events = case.events(PAYMENTS.name, order.order_id);
    let told = events.iter().filter(|event| event.event_type == PaymentRefunded::TYPE).count();
    if told == refunded || (told < refunded && case.may_be_gone(PAYMENTS.name, order)) {
        return;
    }
    report.violation(
        "refund-is-said",
        order.order_id,
        format!("{refunded} {}, as the ledger has refunds", PaymentRefunded::TYPE),
        format!("{told} of them"),
    );
}

/// What payment-service believes is what the gateway did.
fn row(case: &Case<'_>, order: &OrderRow, charges: &[&Charge], report: &mut Report) {
    let believed = case.facts.payments.get(&order.order_id).map_or("no payment", |payment| payment.state.as_str());
    let kept = kept(charges).next().is_some();
    let refunded = charges.iter().any(|charge| charge.status == ChargeStatus::Refunded);
    let expected: &[&str] = match (kept, refunded) {
        (true, _) => &["succeeded"],
        (false, true) => &["refunded"],
        (false, false) => &["failed", "cancelled", "no payment"],
    };
    if !expected.contains(&believed) {
        report.violation_of(
            "payment-agrees",
            Some(order.order_id),
            "payment-service's row",
            format!(
                "{}, as in the ledger: {}",
                expected.join(" or "),
                listed(charges.iter().map(|charge| shown(charge)))
            ),
            believed,
        );
    }
}

fn kept<'a>(charges: &[&'a Charge]) -> impl Iterator<Item = &'a Charge> {
    charges.iter().copied().filter(|charge| charge.status == ChargeStatus::Succeeded)
}

fn shown(charge: &Charge) -> String {
    let status = match charge.status {
        ChargeStatus::Succeeded => "kept",
        ChargeStatus::Refunded => "refunded",
    };
    format!("{} of {} {status}", charge.id, charge.amount)
}
