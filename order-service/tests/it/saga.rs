//! The handlers over a database. Every order of events is the domain's business; here it is that each handler reads,
//! stores, publishes and records what it should.

use event_runtime::{
    HandlerError, Origin,
    outbox::{OnPublished, OutboxRow, Published},
};
use order_service::{
    handlers::{Advance, News},
    store::WriteBack,
};
use serde_json::{Value, json};
use shared_events::{
    MailSent, Money, OrderDeadlineReached, OrderId, PaymentFailed, PaymentId, PaymentRefunded, PaymentSucceeded,
    StockCommitted, StockItem, StockRejected, StockReleased, StockReserved,
};
use test_support::handling::handle_all;

use crate::bench::{Bench, TRACE_ID, delivered};

const PAYMENT: &str = "payment-service";
const INVENTORY: &str = "inventory-service";

fn items() -> Vec<StockItem> {
    vec![StockItem { sku: "COFFEE-1KG".to_owned(), quantity: 2 }, StockItem { sku: "MUG-BLUE".to_owned(), quantity: 1 }]
}

fn paid(order_id: OrderId) -> PaymentSucceeded {
    PaymentSucceeded { order_id, payment_id: PaymentId::new(), amount: Money::eur(5030) }
}

fn value(row: &OutboxRow) -> Value {
    serde_json::from_slice(&row.value).unwrap()
}

fn types(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.envelope.event_type.as_str()).collect()
}

fn events(order: &Value) -> Vec<String> {
    let timeline = order["timeline"].as_array().unwrap();
    timeline.iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn payment_and_stock_complete_the_order_whichever_comes_first() {
    let bench = Bench::new().await;
    for payment_first in [true, false] {
        let order_id = bench.placed().await;
        let payment = delivered(paid(order_id), PAYMENT);
        let stock = delivered(StockReserved { order_id, items: items() }, INVENTORY);
        let published = if payment_first {
            assert_eq!(types(&bench.handle(&Advance, &payment).await.unwrap()), [""; 0]);
            bench.handle(&Advance, &stock).await.unwrap()
        } else {
            assert_eq!(types(&bench.handle(&Advance, &stock).await.unwrap()), [""; 0]);
            bench.handle(&Advance, &payment).await.unwrap()
        };

        assert_eq!(types(&published), ["order.completed"]);
        let completed = value(&published[0]);
        assert_eq!(completed["orderId"], order_id.to_string());
        assert_eq!(completed["paymentId"], payment.event.payment_id.to_string());
        assert_eq!(completed["customerEmail"], "ada@example.org");
        assert_eq!(completed["total"], json!({ "minor": 5030, "currency": "EUR" }));
        let order = bench.order(order_id).await;
        assert_eq!((&order["state"], &order["reason"]), (&json!("completed"), &json!(null)));
        assert_eq!(order["timeline"].as_array().unwrap().len(), 4);
    }
}

#[tokio::test]
async fn news_of_several_orders_is_taken_at_once_each_for_its_own_order() {
    let bench = Bench::new().await;
    let ids = [bench.placed().await, bench.placed().await, bench.placed().await];
    let payments = ids.map(|order_id| delivered(paid(order_id), PAYMENT));
    let rejected = StockRejected { order_id: ids[1], reason: "MUG-BLUE is sold out".to_owned() };
    let first = [
        payments[0].clone().map(News::from),
        delivered(rejected, INVENTORY).map(News::from),
        delivered(StockReserved { order_id: ids[2], items: items() }, INVENTORY).map(News::from),
    ];
    let second = [
        delivered(StockReserved { order_id: ids[0], items: items() }, INVENTORY).map(News::from),
        payments[1].clone().map(News::from),
        payments[2].clone().map(News::from),
    ];
    let mut published = handle_all(&bench.database, &Advance, &first).await.unwrap();
    published.extend(handle_all(&bench.database, &Advance, &second).await.unwrap());

    let said: Vec<_> = published.iter().map(|rows| types(rows)).collect();
    assert_eq!(
        said,
        [vec![], vec!["order.cancelled"], vec![], vec!["order.completed"], vec![], vec!["order.completed"]]
    );
    for (rows, (cause, order_id)) in [
        (&published[1], (&first[1], ids[1])),
        (&published[3], (&second[0], ids[0])),
        (&published[5], (&second[2], ids[2])),
    ] {
        assert_eq!(rows[0].envelope.causation_id, Some(cause.envelope.id));
        assert_eq!(value(&rows[0])["orderId"], order_id.to_string());
    }
    for (order_id, state) in ids.into_iter().zip(["completed", "cancelled", "completed"]) {
        let order = bench.order(order_id).await;
        assert_eq!((&order["state"], order["timeline"].as_array().unwrap().len()), (&json!(state), 4), "{order}");
        assert_eq!(order["payment"], "succeeded", "of the order cancelled before, too");
    }
}

/// On PostgreSQL they really meet: each reads before the other has stored, unless the order is locked.
#[tokio::test]
async fn two_answers_at_the_same_time_end_the_order_once() {
    let bench = Bench::new().await;
    for _ in 0..10 {
        let order_id = bench.placed().await;
        let (payment, stock) =
            (delivered(paid(order_id), PAYMENT), delivered(StockReserved { order_id, items: items() }, INVENTORY));
        let (one, other) = tokio::join!(bench.handle(&Advance, &payment), bench.handle(&Advance, &stock));
        let published = [one.unwrap(), other.unwrap()].concat();
        assert_eq!(types(&published), ["order.completed"]);
        assert_eq!(bench.order(order_id).await["state"], "completed");
    }
}

#[tokio::test]
async fn a_declined_payment_and_missing_stock_cancel_the_order_with_the_reason() {
    let bench = Bench::new().await;
    let (unpaid, sold_out) = (bench.placed().await, bench.placed().await);
    let failed = PaymentFailed { order_id: unpaid, reason: "the card was declined".to_owned() };
    let rejected = StockRejected { order_id: sold_out, reason: "MUG-BLUE is sold out".to_owned() };
    let published = [
        bench.handle(&Advance, &delivered(failed, PAYMENT)).await.unwrap(),
        bench.handle(&Advance, &delivered(rejected, INVENTORY)).await.unwrap(),
    ];
    for (rows, order_id, reason) in
        [(&published[0], unpaid, "the card was declined"), (&published[1], sold_out, "MUG-BLUE is sold out")]
    {
        assert_eq!(types(rows), ["order.cancelled"]);
        assert_eq!(value(&rows[0])["reason"], reason);
        assert_eq!(value(&rows[0])["items"].as_array().unwrap().len(), 2);
        let order = bench.order(order_id).await;
        assert_eq!((&order["state"], &order["reason"]), (&json!("cancelled"), &json!(reason)));
    }
}

#[tokio::test]
async fn a_deadline_cancels_a_pending_order_and_leaves_no_trace_on_an_ended_one() {
    let bench = Bench::new().await;
    let (pending, completed) = (bench.placed().await, bench.placed().await);
    bench.handle(&Advance, &delivered(paid(completed), PAYMENT)).await.unwrap();
    let reserved = StockReserved { order_id: completed, items: items() };
    bench.handle(&Advance, &delivered(reserved, INVENTORY)).await.unwrap();
    let before = bench.order(completed).await;

    let overdue = |order_id| delivered(OrderDeadlineReached { order_id }, "order-service");
    assert_eq!(types(&bench.handle(&Advance, &overdue(pending)).await.unwrap()), ["order.cancelled"]);
    assert_eq!(types(&bench.handle(&Advance, &overdue(completed)).await.unwrap()), [""; 0]);

    let order = bench.order(pending).await;
    assert_eq!(order["state"], "cancelled");
    assert_eq!(events(&order), ["order.created", "order.deadline-reached", "order.cancelled"]);
    assert_eq!(bench.order(completed).await, before);
}

#[tokio::test]
async fn a_late_success_and_its_undoing_are_recorded_and_answered_by_nothing() {
    let bench = Bench::new().await;
    let order_id = bench.placed().await;
    let overdue = delivered(OrderDeadlineReached { order_id }, "order-service");
    bench.handle(&Advance, &overdue).await.unwrap();

    let payment = paid(order_id);
    let refund = PaymentRefunded { order_id, payment_id: payment.payment_id, amount: payment.amount };
    let mut published = bench.handle(&Advance, &delivered(payment, PAYMENT)).await.unwrap();
    assert_eq!(bench.order(order_id).await["payment"], "succeeded");
    let reserved = delivered(StockReserved { order_id, items: items() }, INVENTORY);
    published.extend(bench.handle(&Advance, &reserved).await.unwrap());
    published.extend(bench.handle(&Advance, &delivered(refund, PAYMENT)).await.unwrap());
    let released = delivered(StockReleased { order_id, items: items() }, INVENTORY);
    published.extend(bench.handle(&Advance, &released).await.unwrap());

    assert_eq!(types(&published), [""; 0]);
    let order = bench.order(order_id).await;
    assert_eq!(order["state"], "cancelled");
    assert_eq!((&order["payment"], &order["stock"]), (&json!("refunded"), &json!("released")));
    assert_eq!(
        events(&order)[2..],
        ["order.cancelled", "payment.succeeded", "stock.reserved", "payment.refunded", "stock.released"]
    );
}

#[tokio::test]
async fn a_line_of_another_service_says_where_it_stands_who_said_it_and_at_which_attempt() {
    let bench = Bench::new().await;
    let order_id = bench.placed().await;
    let delivery = delivered(paid(order_id), PAYMENT);
    bench.handle(&Advance, &delivery).await.unwrap();
    let line = bench.order(order_id).await["timeline"][1].clone();
    let expected = json!({
        "time": line["time"],
        "service": "payment-service",
        "event": "payment.succeeded",
        "eventId": delivery.envelope.id.to_string(),
        "topic": "payments",
        "partition": 3,
        "offset": 7,
        "attempt": 2,
        "traceId": TRACE_ID,
        "detail": "50.30 EUR",
    });
    assert_eq!(line, expected);
}

#[tokio::test]
async fn what_follows_the_ending_is_recorded_too_and_once_however_often_it_is_handled() {
    let bench = Bench::new().await;
    let order_id = bench.placed().await;
    let sold = delivered(StockCommitted { order_id, items: items() }, INVENTORY);
    let mail = MailSent { order_id, about: "order.completed".to_owned(), message_id: "<1@example.org>".to_owned() };
    let mail = delivered(mail, "email-service");
    for _ in 0..2 {
        assert_eq!(types(&bench.handle(&Advance, &sold).await.unwrap()), [""; 0]);
        assert_eq!(types(&bench.handle(&Advance, &mail).await.unwrap()), [""; 0]);
    }
    let order = bench.order(order_id).await;
    assert_eq!(events(&order), ["order.created", "stock.committed", "mail.sent"]);
    assert_eq!(order["timeline"][1]["detail"], "2 × COFFEE-1KG, 1 × MUG-BLUE");
    assert_eq!(order["timeline"][2]["detail"], "about order.completed, <1@example.org>");
}

#[tokio::test]
async fn an_event_of_an_unknown_order_is_rejected_and_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let order_id = OrderId::new();
    let mail = MailSent { order_id, about: "order.completed".to_owned(), message_id: "<1@example.org>".to_owned() };
    let answers = [
        bench.handle(&Advance, &delivered(paid(order_id), PAYMENT)).await,
        bench.handle(&Advance, &delivered(OrderDeadlineReached { order_id }, "order-service")).await,
        bench.handle(&Advance, &delivered(mail, "email-service")).await,
    ];
    for answer in answers {
        match answer {
            Err(HandlerError::Reject(error)) => assert_eq!(error.to_string(), format!("there is no order {order_id}")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.count("order_timeline").await, 0);
}

#[tokio::test]
async fn the_relay_writes_back_where_our_own_events_stand() {
    let bench = Bench::new().await;
    let (first, second) = (bench.placed().await, bench.placed().await);
    let mut published = Vec::new();
    for (order_id, offset) in [(first, 41), (second, 42)] {
        let event_id = bench.order(order_id).await["timeline"][0]["eventId"].as_str().unwrap().parse().unwrap();
        let origin = Origin { topic: "orders".into(), partition: 5, offset };
        published.push(Published { event_id, origin });
    }
    // The deadline has no line until it is handled: writing it back changes nothing.
    let origin = Origin { topic: "order-deadlines".into(), partition: 0, offset: 0 };
    published.push(Published { event_id: shared_events::EventId::new(), origin });

    let mut tx = bench.database.begin().await.unwrap();
    WriteBack.published(&mut tx, &published).await.unwrap();
    tx.commit().await.unwrap();

    for (order_id, offset) in [(first, 41), (second, 42)] {
        let line = bench.order(order_id).await["timeline"][0].clone();
        assert_eq!((&line["partition"], &line["offset"]), (&json!(5), &json!(offset)));
    }
}
