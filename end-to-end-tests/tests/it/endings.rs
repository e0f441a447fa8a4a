//! Every way an order can end.

use std::time::Duration;

use end_to_end_tests::OrderRequest;
use serde_json::json;
use test_support::eventually;

use crate::{SOON, assert_stock_is_conserved, stack};

#[tokio::test]
async fn orders_are_paid_declined_or_refused_for_lack_of_stock() {
    let stack = stack().start().await.unwrap();

    let paid = stack.place(&OrderRequest::of("COFFEE-1KG").times(3)).await.unwrap();
    let declined = stack.place(&OrderRequest::of("TEA-GREEN-250G").paid_with("tok_chargeDeclined")).await.unwrap();
    let short = stack.place(&OrderRequest::of("GIFT-CARD-RARE")).await.unwrap();
    let flaky = stack.place(&OrderRequest::of("FILTER-PAPER-100").paid_with("tok_flaky")).await.unwrap();

    let order = stack.at_rest(&paid, SOON).await;
    assert_eq!(order.state, "completed");
    for event in ["order.created", "payment.succeeded", "stock.reserved", "order.completed", "stock.committed"] {
        assert_eq!(order.count(event), 1, "{event} in {order:#?}");
    }
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 3).await;

    let order = stack.at_rest(&declined, SOON).await;
    assert_eq!(order.state, "cancelled");
    assert!(order.reason.as_deref().is_some_and(|reason| reason.contains("declined")), "{order:#?}");
    assert_stock_is_conserved(&stack, "TEA-GREEN-250G", 10_000, 0).await;

    let order = stack.at_rest(&short, SOON).await;
    assert_eq!(order.state, "cancelled");
    assert!(order.reason.as_deref().is_some_and(|reason| reason.contains("GIFT-CARD-RARE")), "{order:#?}");

    let order = stack.at_rest(&flaky, SOON).await;
    assert_eq!(order.state, "completed");
    let charged = order.timeline.iter().find(|entry| entry.event == "payment.succeeded").unwrap();
    assert_eq!(charged.attempt, Some(3), "it fails twice, then works: {order:#?}");

    assert_eq!(stack.charges_of(&paid).await.unwrap().len(), 1);
    assert_eq!(stack.charges_of(&declined).await.unwrap().len(), 0);
    assert_eq!(stack.charges_of(&flaky).await.unwrap().len(), 1);
    for charge in stack.charges_of(&short).await.unwrap() {
        assert_eq!(charge["status"], "refunded", "{charge}");
    }
    let copies = stack.smtp().copies();
    assert_eq!(copies.len(), 4, "one mail an order");
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
}

#[tokio::test]
async fn a_gateway_that_charges_and_never_answers_is_asked_by_key() {
    let stack = stack().with("payment-service", &["--gateway-timeout", "500ms"]).start().await.unwrap();
    let id = stack.place(&OrderRequest::of("COFFEE-1KG").paid_with("tok_timeout")).await.unwrap();

    let order = stack.at_rest(&id, SOON).await;
    assert_eq!(order.state, "completed", "{order:#?}");
    let charges = stack.charges_of(&id).await.unwrap();
    assert_eq!(charges.len(), 1, "{charges:?}");
    assert_eq!(charges[0]["status"], "succeeded");
}

#[tokio::test]
async fn a_charge_that_comes_too_late_is_refunded() {
    let stack = stack()
        .with("order-service", &["--order-deadline", "1s"])
        .with("payment-service", &["--gateway-timeout", "10s"])
        .start()
        .await
        .unwrap();
    stack.fault_gateway(json!({ "mode": "slow", "delayMs": 3000 })).await.unwrap();
    let id = stack.place(&OrderRequest::of("COFFEE-1KG")).await.unwrap();

    let order = stack.at_rest(&id, Duration::from_secs(30)).await;
    assert_eq!(order.state, "cancelled");
    assert_eq!(order.count("order.cancelled"), 1);
    // The order is at rest before the gateway has charged.
    eventually(SOON, "refund of the late charge", async || {
        let charges = stack.charges_of(&id).await.unwrap();
        match charges.iter().map(|charge| &charge["status"]).collect::<Vec<_>>()[..] {
            [status] if status == "refunded" => Ok(()),
            _ => Err(charges),
        }
    })
    .await;
    eventually(SOON, "refund in the order's timeline", async || {
        let order = stack.order(&id).await.unwrap();
        match (order.count("payment.succeeded"), order.count("payment.refunded")) {
            (1, 1) => Ok(()),
            counts => Err(counts),
        }
    })
    .await;
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 0).await;
}
