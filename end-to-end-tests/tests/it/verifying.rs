//! `eventctl verify` on a stack: nothing is found where nothing is wrong, and what is wrong is found.

use end_to_end_tests::{OrderRequest, Stack};
use jiff::Timestamp;
use shared_events::{Envelope, OrderCancelled, OrderId};
use test_support::records::{publish_raw, read_until, type_of};

use crate::{SOON, stack};

#[tokio::test]
async fn verify_finds_nothing_in_a_stack_at_rest_and_a_second_ending_in_another() {
    let stack = stack().start().await.unwrap();
    let coffee = || OrderRequest::of("COFFEE-1KG");
    let requests =
        [coffee().times(2), coffee().paid_with("tok_chargeDeclined"), OrderRequest::of("GIFT-CARD-RARE"), coffee()];
    let mut ids = Vec::new();
    for request in &requests {
        ids.push(stack.place(request).await.unwrap());
    }
    for id in &ids {
        stack.at_rest(id, SOON).await;
    }
    stack.wait_until_handled(SOON).await;

    let report = stack.verify().await.unwrap();
    assert_eq!(report.violations, [], "{}", stack.logs());
    let counts = &report.counts;
    assert_eq!((counts.orders, counts.completed, counts.cancelled, counts.open), (4, 2, 2, 0));
    assert_eq!((counts.charges_kept, counts.mails, counts.pieces_sold), (2, 4, 3));
    assert_eq!((counts.duplicates, counts.dead_letters, counts.extra_mails), (0, 0, 0));
    assert!(counts.handled >= 4 * 6, "{counts:?}");

    let completed: OrderId = ids[0].parse().unwrap();
    cancel_behind_the_service(&stack, completed).await;
    stack.wait_until_handled(SOON).await;
    let report = stack.verify().await.unwrap();
    let found: Vec<_> = report.violations.iter().map(|violation| (violation.rule, violation.order)).collect();
    assert!(found.contains(&("one-terminal-event", Some(completed))), "{:#?}", report.violations);
    // What payment-service did about it: the completed order's money went back.
    assert!(found.contains(&("completed-is-charged", Some(completed))), "{:#?}", report.violations);
}

/// Says that a completed order was cancelled, as only a broken order-service could.
async fn cancel_behind_the_service(stack: &Stack, order: OrderId) {
    let event = OrderCancelled {
        order_id: order,
        customer_email: "ada@example.com".to_owned(),
        items: Vec::new(),
        total: shared_events::Money::eur(1),
        reason: "somebody said so".to_owned(),
    };
    let envelope = Envelope::new(&event, "somebody", Timestamp::now());
    let headers = envelope.to_headers();
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    // As the services' producers choose the partition.
    let kafka = stack.servers().kafka().set("partitioner", "murmur2_random");
    publish_raw(&kafka, "orders", &order.to_string(), &headers, &serde_json::to_vec(&event).unwrap()).await;
    read_until(&stack.servers().kafka(), "orders", SOON, move |records| {
        records.iter().filter(|record| type_of(record) == "order.cancelled").count() == 3
    })
    .await;
}
