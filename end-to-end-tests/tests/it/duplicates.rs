//! Every event delivered twice has one effect.

use end_to_end_tests::OrderRequest;
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
    for (topic, count) in [("orders", 4), ("payments", 2), ("inventory", 4), ("mails", 2)] {
        for record in read_until(&kafka, topic, SOON, move |records| records.len() == count).await {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            let headers: Vec<(&str, &[u8])> =
                record.headers.iter().map(|(name, value)| (&**name, value.as_deref().unwrap_or(b""))).collect();
            publish_raw(&kafka, topic, &key, &headers, &record.value.unwrap()).await;
        }
    }

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
