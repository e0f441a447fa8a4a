//! Every event delivered twice has one effect.

use end_to_end_tests::OrderRequest;
use shared_events::topics::TOPICS;
use test_support::records::{publish_raw, read_until};

use crate::{SOON, assert_stock_is_conserved, stack};

#[tokio::test]
async fn every_event_delivered_twice_has_one_effect() {
    let stack = stack().start().await.unwrap();
    let kafka = stack.servers().kafka();
    let paid = stack.place(&OrderRequest::of("COFFEE-1KG").times(2)).await.unwrap();
    let declined = stack.place(&OrderRequest::of("MUG-BLUE").paid_with("tok_chargeDeclined")).await.unwrap();
    let before = [stack.at_rest(&paid, SOON).await, stack.at_rest(&declined, SOON).await];

    // Everything that was ever said about them is said again, in the same order, under the same event ids.
    let mut again = 0;
    for topic in TOPICS.iter().filter(|topic| topic.name != "order-deadlines") {
        let records = read_until(&kafka, topic.name, SOON, |records| !records.is_empty()).await;
        for record in records {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            let headers: Vec<(&str, &[u8])> =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or(b""))).collect();
            publish_raw(&kafka, topic.name, &key, &headers, &record.value.unwrap()).await;
            again += 1;
        }
    }
    assert!(again >= 12, "two whole orders were repeated: {again} events");

    stack.wait_until_handled(SOON).await;
    for (id, before) in [&paid, &declined].into_iter().zip(before) {
        let after = stack.order(id).await.unwrap();
        assert_eq!(after.timeline.len(), before.timeline.len(), "{after:#?}");
        assert_eq!(after.state, before.state);
    }
    assert_eq!(stack.charges().await.unwrap().len(), 1);
    assert_eq!(stack.smtp().mails().len(), 2);
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 2).await;
    assert_stock_is_conserved(&stack, "MUG-BLUE", 100, 0).await;
}
