//! No piece is made or lost, and each stands where its order says.

use std::collections::BTreeMap;

use super::{Case, Report, listed};
use crate::verify::facts::{OrderRow, OrderState, ReservationRow, StockRow};

pub(super) fn check(case: &Case<'_>, report: &mut Report) {
    let mut held = BTreeMap::<&str, i64>::new();
    let mut sold = BTreeMap::<&str, i64>::new();
    for reservation in case.facts.reservations.values() {
        let into = match reservation.state.as_str() {
            "reserved" => &mut held,
            "committed" => &mut sold,
            _ => continue,
        };
        for item in &reservation.items {
            *into.entry(&item.sku).or_default() += i64::from(item.quantity);
        }
    }
    for level in &case.facts.stock {
        report.counts.pieces_sold += level.sold;
        let counted = |sums: &BTreeMap<&str, i64>| sums.get(level.sku.as_str()).copied().unwrap_or(0);
        of_sku(level, counted(&held), counted(&sold), report);
    }
    for order in case.ended() {
        of_order(order, case.facts.reservations.get(&order.order_id), report);
    }
    for (order, reservation) in &case.facts.reservations {
        if !case.facts.orders.contains_key(order) && reservation.changed_at < case.settled {
            report.violation("reservation-known", *order, "a row in order-service", shown(Some(reservation)));
        }
    }
}

fn of_sku(level: &StockRow, held: i64, sold: i64, report: &mut Report) {
    let StockRow { sku, seeded, adjustments, available, reserved, .. } = level;
    let mut wrong = |expected: String, found: String| {
        report.violation_of("stock-conserved", None, sku, expected, found);
    };
    let (came_in, are_there) = (seeded + adjustments, available + reserved + level.sold);
    if came_in != are_there {
        wrong(
            format!("seeded {seeded} + adjustments {adjustments} = {came_in}"),
            format!("available {available} + reserved {reserved} + sold {} = {are_there}", level.sold),
        );
    }
    if *reserved != held {
        wrong(format!("{held} reserved, as the open reservations hold"), format!("{reserved}"));
    }
    if level.sold != sold {
        wrong(format!("{sold} sold, as the reservations of completed orders hold"), format!("{}", level.sold));
    }
}

fn of_order(order: &OrderRow, reservation: Option<&ReservationRow>, report: &mut Report) {
    let state = reservation.map_or("none", |reservation| reservation.state.as_str());
    if order.state != OrderState::Completed {
        if !["none", "rejected", "released", "cancelled"].contains(&state) {
            report.violation("stock-follows-order", order.order_id, "nothing set aside or sold", shown(reservation));
        }
        return;
    }
    let ordered = summed(order.items.iter().map(|item| (item.sku.as_str(), item.quantity)));
    let items = reservation.iter().flat_map(|reservation| &reservation.items);
    let held = summed(items.map(|item| (item.sku.as_str(), item.quantity)));
    if state != "committed" || held != ordered {
        let expected = format!("sold: {}", listed(ordered.iter().map(|(sku, quantity)| format!("{quantity} {sku}"))));
        report.violation("stock-follows-order", order.order_id, expected, shown(reservation));
    }
}

fn summed<'a>(items: impl Iterator<Item = (&'a str, u32)>) -> BTreeMap<&'a str, u64> {
    let mut sums = BTreeMap::new();
    for (sku, quantity) in items {
        *sums.entry(sku).or_default() += u64::from(quantity);
    }
    sums
}

fn shown(reservation: Option<&ReservationRow>) -> String {
    let Some(ReservationRow { state, items, .. }) = reservation else { return "no reservation".to_owned() };
    format!("{state}: {}", listed(items.iter().map(|item| format!("{} {}", item.quantity, item.sku))))
}
