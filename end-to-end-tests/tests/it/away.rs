//! A service or the gateway is away for a while: the others go on, and nothing is lost.

use std::time::Duration;

use end_to_end_tests::OrderRequest;
use futures_util::future::try_join_all;
use test_support::eventually;

use crate::{SOON, assert_stock_is_conserved, stack};

#[tokio::test]
async fn a_consumer_that_was_away_catches_up() {
    let mut stack = stack().start().await.unwrap();
    stack.stop("email-service").await.unwrap();

    let request = OrderRequest::of("COFFEE-1KG");
    let ids = try_join_all((0..100).map(|_| stack.place(&request))).await.unwrap();
    for id in &ids {
        eventually(SOON, "completed order", async || match stack.order(id).await {
            Ok(order) if order.state == "completed" => Ok(()),
            other => Err(format!("{other:#?}")),
        })
        .await;
    }
    assert_eq!(stack.smtp().mails().len(), 0);

    stack.launch("email-service").await.unwrap();
    eventually(SOON, "100 mails", async || match stack.smtp().mails().len() {
        100 => Ok(()),
        mails => Err(mails),
    })
    .await;
    assert!(stack.smtp().copies().values().all(|copies| *copies == 1));
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 100).await;
}

#[tokio::test]
async fn a_gateway_outage_uses_up_no_attempts() {
    let mut stack = stack().start().await.unwrap();
    let away = stack.kill_gateway().await.unwrap();
    let id = stack.place(&OrderRequest::of("COFFEE-1KG")).await.unwrap();
    // Longer than all retries of a failing record would take.
    eventually(SOON, "payment that waits", async || {
        let log = stack.logs();
        if log.contains("outage: pausing") { Ok(()) } else { Err("no word of an outage") }
    })
    .await;
    stack.revive_gateway(away).await.unwrap();

    let order = stack.at_rest(&id, SOON).await;
    assert_eq!(order.state, "completed", "{order:#?}");
    assert_eq!(stack.charges_of(&id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn payment_back_after_the_deadline_charges_nobody() {
    let mut stack = stack().with("order-service", &["--order-deadline", "2s"]).start().await.unwrap();
    stack.stop("payment-service").await.unwrap();
    let request = OrderRequest::of("COFFEE-1KG");
    let ids = try_join_all((0..10).map(|_| stack.place(&request))).await.unwrap();
    for id in &ids {
        eventually(SOON, "order cancelled by its deadline", async || match stack.order(id).await {
            Ok(order) if order.state == "cancelled" => Ok(()),
            other => Err(format!("{other:#?}")),
        })
        .await;
    }

    stack.launch("payment-service").await.unwrap();
    for id in &ids {
        let order = stack.at_rest(id, SOON).await;
        assert_eq!(order.state, "cancelled");
    }
    stack.wait_until_handled(Duration::from_secs(30)).await;
    let kept: Vec<_> =
        stack.charges().await.unwrap().into_iter().filter(|charge| charge["status"] != "refunded").collect();
    assert!(kept.is_empty(), "nobody is charged and kept: {kept:#?}");
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, 0).await;
}
