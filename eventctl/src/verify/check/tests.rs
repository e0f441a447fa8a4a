//! A scene in which every rule holds, and for each rule what breaks it.

use event_runtime::Origin;
use shared_events::{Money, OrderItem, StockItem};

use super::*;
use crate::verify::facts::{
    Charge, ChargeStatus, EventRecord, Fate, InboxRow, Letter, Mail, MailRow, OrderRow, OutboxRow, OutboxTable,
    PaymentRow, ReservationRow, StockRow,
};

const STRICT: Limits = Limits { grace: Duration::from_secs(10), clock_skew: Duration::ZERO, max_extra_mails: None };

fn at(second: u32) -> Timestamp {
    format!("2026-01-31T12:00:{second:02}Z").parse().unwrap()
}

fn uuid<T: std::str::FromStr<Err: std::fmt::Debug>>(number: u32) -> T {
    format!("01890a5d-ac96-774b-bcce-{number:012}").parse().unwrap()
}

/// Completed, cancelled, still open.
const COMPLETED: u32 = 1;
const CANCELLED: u32 = 2;
const OPEN: u32 = 3;

struct Scene(Facts);

impl Scene {
    /// Three orders a minute ago: one completed, one cancelled after it was charged, one open.
    fn clean() -> Scene {
        let mut scene = Scene(Facts { at: at(59), ..Facts::default() });
        for (number, state) in
            [(COMPLETED, OrderState::Completed), (CANCELLED, OrderState::Cancelled), (OPEN, OrderState::Pending)]
        {
            let order_id = uuid(number);
            let item = OrderItem { sku: "TEA".to_owned(), quantity: number, unit_price: Money::eur(100) };
            scene.0.orders.insert(
                order_id,
                OrderRow {
                    order_id,
                    state,
                    items: vec![item],
                    total: Money::eur(100 * i64::from(number)),
                    created_at: at(0),
                    expires_at: if number == OPEN { at(59) } else { at(30) },
                    ended_at: (state != OrderState::Pending).then(|| at(5)),
                },
            );
            scene.say("orders", number, 10 * number, "order.created", &["payment-service", "inventory-service"]);
            scene.hold(number, if state == OrderState::Completed { "committed" } else { "released" });
        }
        scene.hold(OPEN, "reserved");
        for (number, event, status, payment) in [
            (COMPLETED, "order.completed", ChargeStatus::Succeeded, "succeeded"),
            (CANCELLED, "order.cancelled", ChargeStatus::Refunded, "refunded"),
        ] {
            let charged = 10 * number + 3;
            scene.say("payments", number, charged, "payment.succeeded", &["order-service"]);
            scene.say("inventory", number, charged + 1, "stock.reserved", &["order-service"]);
            let groups = ["payment-service", "inventory-service", "email-service"];
            scene.say("orders", number, charged + 2, event, &groups[usize::from(number == COMPLETED)..]);
            let moved = if number == COMPLETED { "stock.committed" } else { "stock.released" };
            scene.say("inventory", number, charged + 3, moved, &["order-service"]);
            scene.charge(number, status);
            scene.0.payments.insert(uuid(number), PaymentRow { order_id: uuid(number), state: payment.to_owned() });
            scene.mail(number, charged + 2);
            scene.0.mail_rows.push(MailRow { order_id: uuid(number), state: "sent".to_owned(), error: None });
        }
        scene.say("payments", CANCELLED, 29, "payment.refunded", &["order-service"]);
        scene.0.stock.push(StockRow {
            sku: "TEA".to_owned(),
            seeded: 90,
            adjustments: 10,
            available: 96,
            reserved: 3,
            sold: 1,
        });
        for topic in ["orders", "payments", "inventory"] {
            for group in GROUPS_ALL {
                scene.0.committed.insert((group.to_owned(), topic.to_owned(), 0), 1000);
            }
        }
        scene
    }

    /// An event, whose number is its offset and its second too, and who has handled it.
    fn say(&mut self, topic: &str, order: u32, event: u32, event_type: &str, handled_by: &[&str]) {
        self.0.records.push(EventRecord {
            origin: Origin { topic: topic.into(), partition: 0, offset: i64::from(event) },
            time: at(event % 50),
            key: Some(uuid(order)),
            event: uuid(event),
            event_type: event_type.to_owned(),
        });
        for group in handled_by {
            self.fate(group, event, Fate::Handled);
        }
    }

    fn fate(&mut self, group: &str, event: u32, fate: Fate) {
        let row = InboxRow { handled_at: at(event % 50), fate };
        self.0.inbox.entry(group.to_owned()).or_default().insert(uuid(event), row);
    }

    fn handled_at(&mut self, group: &str, event: u32, second: u32) {
        self.0.inbox.get_mut(group).unwrap().get_mut(&uuid(event)).unwrap().handled_at = at(second);
    }

    fn forget(&mut self, group: &str, event: u32) {
        self.0.inbox.get_mut(group).unwrap().remove(&uuid(event)).unwrap();
    }

    fn hold(&mut self, order: u32, state: &str) {
        let row = ReservationRow {
            order_id: uuid(order),
            state: state.to_owned(),
            items: vec![StockItem { sku: "TEA".to_owned(), quantity: order }],
            changed_at: at(6),
        };
        self.0.reservations.insert(uuid(order), row);
    }

    fn charge(&mut self, order: u32, status: ChargeStatus) {
        self.0.charges.push(Charge {
            id: format!("ch_{}", self.0.charges.len()),
            idempotency_key: uuid::<OrderId>(order).to_string(),
            amount: Money::eur(100 * i64::from(order)),
            status,
            created_at: at(3),
        });
    }

    fn mail(&mut self, order: u32, event: u32) {
        let message_id = format!("{}@shop.example", uuid::<EventId>(event));
        self.0.mails.push(Mail { message_id, order: Some(uuid(order)) });
    }

    fn letter(&mut self, group: &str, event: u32, class: &str) {
        let (record, origin) = self.dead(group, event);
        self.0.letters.push(Letter {
            origin,
            group: group.to_owned(),
            original: Some(record.origin),
            key: record.key,
            event: Some(record.event),
            class: class.to_owned(),
        });
    }

    fn dead(&self, group: &str, event: u32) -> (EventRecord, Origin) {
        let record = self.0.records.iter().find(|record| record.event == uuid(event)).unwrap().clone();
        let origin = Origin { topic: format!("{}.{group}.dlt", record.origin.topic).into(), partition: 0, offset: 0 };
        (record, origin)
    }

    fn outbox(&mut self, table: OutboxTable, due_at: Timestamp) {
        self.0.outbox.push(OutboxRow {
            service: "order-service".to_owned(),
            table,
            event_id: "e".to_owned(),
            topic: "orders".to_owned(),
            key: uuid::<OrderId>(COMPLETED).to_string(),
            due_at,
            reason: None,
        });
    }

    fn order(&mut self, number: u32) -> &mut OrderRow {
        self.0.orders.get_mut(&uuid(number)).unwrap()
    }

    fn drop_record(&mut self, event: u32) {
        self.0.records.retain(|record| record.event != uuid(event));
    }
}

const GROUPS_ALL: [&str; 4] = ["order-service", "payment-service", "inventory-service", "email-service"];

#[test]
fn where_every_rule_holds_nothing_is_found() {
    let report = check(&Scene::clean().0, &STRICT);
    assert_eq!(report.violations, []);
    let Counts { orders, completed, cancelled, open, charges_kept, charges_refunded, mails, pieces_sold, .. } =
        report.counts;
    assert_eq!((orders, completed, cancelled, open), (3, 1, 1, 1));
    assert_eq!((charges_kept, charges_refunded, mails, pieces_sold), (1, 1, 2, 1));
    assert_eq!(report.counts.handled, 18);
}

/// Breaks one thing.
type Break = fn(&mut Scene);

#[test]
fn what_breaks_a_rule_is_found_and_named() {
    let table: &[(&str, Option<u32>, Break)] = &[
        ("order-ends", Some(OPEN), |s| s.order(OPEN).expires_at = at(20)),
        ("one-terminal-event", Some(COMPLETED), |s| s.drop_record(15)),
        ("one-terminal-event", Some(COMPLETED), |s| s.say("orders", COMPLETED, 48, "order.completed", &[])),
        ("one-terminal-event", Some(CANCELLED), |s| {
            s.drop_record(25);
            s.say("orders", CANCELLED, 25, "order.completed", &[]);
        }),
        ("one-terminal-event", Some(CANCELLED), |s| s.drop_record(20)),
        ("order-known", Some(9), |s| {
            s.say("orders", 9, 47, "order.created", &["payment-service", "inventory-service"])
        }),
        ("completed-is-charged", Some(COMPLETED), |s| {
            s.0.charges.remove(0);
            s.0.payments.remove(&uuid(COMPLETED));
        }),
        ("completed-is-charged", Some(COMPLETED), |s| s.0.charges[0].amount = Money::eur(99)),
        ("charged-once", Some(COMPLETED), |s| s.charge(COMPLETED, ChargeStatus::Succeeded)),
        ("cancelled-is-not-charged", Some(CANCELLED), |s| {
            s.0.charges[1].status = ChargeStatus::Succeeded;
            s.0.payments.get_mut(&uuid(CANCELLED)).unwrap().state = "succeeded".to_owned();
            s.drop_record(29);
        }),
        ("refund-is-said", Some(CANCELLED), |s| s.drop_record(29)),
        ("refund-is-said", Some(CANCELLED), |s| s.say("payments", CANCELLED, 28, "payment.refunded", &[])),
        ("payment-agrees", Some(CANCELLED), |s| {
            s.0.payments.get_mut(&uuid(CANCELLED)).unwrap().state = "refunding".to_owned();
        }),
        ("charge-known", None, |s| {
            s.0.charges.push(Charge { idempotency_key: "k".to_owned(), ..s.0.charges[0].clone() })
        }),
        ("one-mail", Some(COMPLETED), |s| drop(s.0.mails.remove(0))),
        ("one-mail", Some(COMPLETED), |s| s.mail(COMPLETED, 7)),
        ("one-mail", Some(CANCELLED), |s| {
            s.0.mails.remove(1);
            s.mail(CANCELLED, 15);
        }),
        ("one-mail", Some(OPEN), |s| {
            s.order(OPEN).expires_at = at(59) + Duration::from_secs(9);
            s.mail(OPEN, 7);
        }),
        ("stock-conserved", None, |s| s.0.stock[0].available += 1),
        ("stock-conserved", None, |s| {
            s.0.stock[0].available -= 1;
            s.0.stock[0].reserved += 1;
        }),
        ("stock-conserved", None, |s| {
            s.0.stock[0].available -= 1;
            s.0.stock[0].sold += 1;
        }),
        ("stock-follows-order", Some(CANCELLED), |s| {
            s.hold(CANCELLED, "reserved");
            (s.0.stock[0].available, s.0.stock[0].reserved) = (94, 5);
        }),
        ("stock-follows-order", Some(COMPLETED), |s| {
            s.0.reservations.get_mut(&uuid(COMPLETED)).unwrap().items[0].quantity = 2;
            (s.0.stock[0].available, s.0.stock[0].sold) = (95, 2);
        }),
        ("reservation-known", Some(9), |s| s.hold(9, "released")),
        ("outbox-empty", Some(COMPLETED), |s| s.outbox(OutboxTable::Due, at(20))),
        ("outbox-empty", Some(COMPLETED), |s| s.outbox(OutboxTable::Delayed, at(20))),
        ("outbox-empty", Some(COMPLETED), |s| s.outbox(OutboxTable::Poison, at(59))),
        ("order-per-key", Some(COMPLETED), |s| {
            let again = s.0.records.iter().find(|record| record.event == uuid(15)).unwrap().clone();
            s.0.records.push(EventRecord { origin: Origin { partition: 1, ..again.origin }, time: at(50), ..again });
        }),
        ("order-per-key", Some(COMPLETED), |s| {
            s.drop_record(10);
            s.say("orders", COMPLETED, 10, "order.created", &[]);
            s.0.records.last_mut().unwrap().origin.offset = 18;
            s.handled_at("inventory-service", 10, 18);
        }),
        ("order-per-key", Some(COMPLETED), |s| s.handled_at("inventory-service", 15, 9)),
        ("nothing-lost", Some(CANCELLED), |s| s.forget("payment-service", 20)),
        ("dead-letter-accounted-for", Some(CANCELLED), |s| s.fate("email-service", 25, Fate::Dead)),
        ("dead-letter-accounted-for", Some(CANCELLED), |s| {
            s.letter("email-service", 25, "retries-exhausted");
            s.forget("email-service", 25);
        }),
    ];
    for (number, (rule, order, break_it)) in table.iter().enumerate() {
        let mut scene = Scene::clean();
        break_it(&mut scene);
        let report = check(&scene.0, &STRICT);
        // Whatever else follows from it has rows of its own.
        let found: Vec<_> = report.violations.iter().filter(|found| found.rule == *rule).collect();
        let orders: Vec<_> = found.iter().map(|found| found.order).collect();
        assert_eq!(orders, [order.map(uuid)], "row {number}, {rule}: {:#?}", report.violations);
    }
}

#[test]
fn what_may_be_so_is_no_violation() {
    let table: &[(&str, Break)] = &[
        ("a duplicate", |s| {
            let again = s.0.records[0].clone();
            s.0.records.push(EventRecord { origin: Origin { offset: 900, ..again.origin }, time: at(50), ..again });
        }),
        ("an order that has just ended", |s| {
            s.order(COMPLETED).ended_at = Some(at(55));
            s.drop_record(15);
            s.0.mails.remove(0);
        }),
        ("an order older than its topics", |s| {
            s.0.trimmed.extend(["orders", "payments", "inventory"].map(str::to_owned));
            s.0.records.clear();
        }),
        ("an event whose group is not there yet", |s| {
            s.forget("payment-service", 20);
            s.0.committed.insert(("payment-service".to_owned(), "orders".to_owned(), 0), 20);
        }),
        ("a record that no handler could read", |s| {
            s.forget("payment-service", 20);
            s.letter("payment-service", 20, "rejected");
        }),
        ("a dead letter that waits", |s| {
            s.fate("email-service", 25, Fate::Dead);
            s.letter("email-service", 25, "retries-exhausted");
        }),
        ("a replayed dead letter, handled after its successor", |s| {
            s.letter("payment-service", 20, "retries-exhausted");
            s.handled_at("payment-service", 20, 49);
        }),
        ("a mail that was refused for good", |s| {
            s.0.mails.remove(1);
            s.0.mail_rows[1].state = "failed".to_owned();
            s.fate("email-service", 25, Fate::Dead);
            s.letter("email-service", 25, "rejected");
        }),
        ("a second copy of a mail", |s| s.mail(COMPLETED, 15)),
        ("what was written a moment ago", |s| {
            s.outbox(OutboxTable::Due, at(58));
            s.outbox(OutboxTable::Delayed, at(59) + Duration::from_secs(9));
        }),
        ("clocks that differ as much as they may", |s| s.handled_at("inventory-service", 15, 10)),
    ];
    for (what, break_it) in table {
        let mut scene = Scene::clean();
        break_it(&mut scene);
        let report = check(&scene.0, &STRICT);
        assert_eq!(report.violations, [], "{what}");
    }
}

#[test]
fn extra_copies_are_counted_and_bounded_on_demand() {
    let mut scene = Scene::clean();
    scene.mail(COMPLETED, 15);
    scene.mail(COMPLETED, 15);
    assert_eq!(check(&scene.0, &STRICT).counts.extra_mails, 2);
    for (most, expected) in [(2, 0), (1, 1)] {
        let limits = Limits { max_extra_mails: Some(most), ..STRICT };
        assert_eq!(check(&scene.0, &limits).violations.len(), expected, "at most {most}");
    }
}
