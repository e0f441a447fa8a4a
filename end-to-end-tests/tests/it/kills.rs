//! Services die by SIGKILL in the middle of their work, and two instances of each share it.

use std::{collections::HashSet, time::Duration};

use end_to_end_tests::OrderRequest;
use futures_util::future::try_join_all;

use crate::{assert_stock_is_conserved, stack};

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn services_killed_in_the_middle_lose_and_double_nothing() {
    let mut stack = stack().with("order-service", &["--order-deadline", "120s"]).start().await.unwrap();
    let request = OrderRequest::of("COFFEE-1KG");
    let mut ids = Vec::new();
    for victim in ["payment-service", "inventory-service", "email-service"] {
        ids.extend(try_join_all((0..20).map(|_| stack.place(&request))).await.unwrap());
        stack.kill(victim).await.unwrap();
        ids.extend(try_join_all((0..5).map(|_| stack.place(&request))).await.unwrap());
        stack.launch(victim).await.unwrap();
    }
    ids.extend(try_join_all((0..20).map(|_| stack.place(&request))).await.unwrap());
    stack.kill("order-service").await.unwrap();
    stack.launch("order-service").await.unwrap();
    stack.wait_until_ready().await.unwrap();

    for id in &ids {
        let order = stack.at_rest(id, PATIENCE).await;
        assert_eq!(order.state, "completed", "{order:#?}");
        let charges = stack.charges_of(id).await.unwrap();
        assert_eq!(charges.len(), 1, "{charges:?}");
    }
    assert_eq!(stack.charges().await.unwrap().len(), ids.len());
    let copies = stack.smtp().copies();
    assert_eq!(copies.len(), ids.len(), "every order has its mail, all copies share one Message-ID");
    println!("{} mails were sent more than once", copies.values().filter(|copies| **copies > 1).count());
    let sold = i64::try_from(ids.len()).unwrap();
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, sold).await;
}

#[tokio::test]
async fn two_instances_of_each_service_share_the_work() {
    // An instance that leaves while its group still rebalances is missed only when its session ends.
    let mut stack = stack().instances(2).with("order-service", &["--order-deadline", "120s"]).start().await.unwrap();
    let request = OrderRequest::of("COFFEE-1KG");
    let mut ids = try_join_all((0..40).map(|_| stack.place(&request))).await.unwrap();
    // One of two goes in good order; the other takes over its partitions.
    stack.stop("payment-service").await.unwrap();
    stack.stop("inventory-service").await.unwrap();
    ids.extend(try_join_all((0..40).map(|_| stack.place(&request))).await.unwrap());

    for id in &ids {
        assert_eq!(stack.at_rest(id, PATIENCE).await.state, "completed");
    }
    assert_eq!(stack.charges().await.unwrap().len(), ids.len());
    assert_eq!(stack.smtp().copies().len(), ids.len());
    let sold = i64::try_from(ids.len()).unwrap();
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, sold).await;
}

#[tokio::test]
async fn a_mix_of_orders_adds_up_although_a_service_of_each_kind_is_killed() {
    let mut stack = stack().with("order-service", &["--order-deadline", "120s"]).start().await.unwrap();
    // The whole mix on real servers; embedded, as many as keep the suite short.
    let count = if stack.servers().are_real() { 1_000 } else { 100 };
    let mix = [
        OrderRequest::of("COFFEE-1KG").times(2),
        OrderRequest::of("COFFEE-1KG").paid_with("tok_chargeDeclined"),
        OrderRequest::of("GIFT-CARD-RARE"),
        OrderRequest::of("COFFEE-1KG").paid_with("tok_flaky"),
        OrderRequest::of("COFFEE-1KG").paid_with("tok_insufficient_funds"),
    ];
    let mut ids = Vec::new();
    for victim in ["inventory-service", "payment-service", "email-service", "order-service"] {
        let requests = (0..count / 4).map(|number| stack.place(&mix[number % mix.len()]));
        ids.extend(try_join_all(requests).await.unwrap());
        stack.kill(victim).await.unwrap();
        stack.launch(victim).await.unwrap();
        stack.wait_until_ready().await.unwrap();
    }

    let mut completed = Vec::new();
    for id in &ids {
        let order = stack.at_rest(id, PATIENCE).await;
        if order.state == "completed" {
            completed.push(order);
        }
    }
    stack.wait_until_handled(PATIENCE).await;
    let ended = completed.iter().map(|order| order.order_id.as_str()).collect::<HashSet<_>>();
    println!("{} of {} orders completed", ended.len(), ids.len());
    assert_eq!(ended.len(), ids.len() * 2 / 5, "two of five kinds end well");

    let charges = stack.charges().await.unwrap();
    let kept: Vec<_> = charges.iter().filter(|charge| charge["status"] != "refunded").collect();
    assert_eq!(kept.len(), ended.len(), "a charge is kept for every completed order, and for no other");
    assert!(kept.iter().all(|charge| charge["idempotencyKey"].as_str().is_some_and(|order| ended.contains(order))));
    assert_eq!(stack.smtp().copies().len(), ids.len(), "one mail an order");
    // Of every five orders one is for two and one for one.
    let sold = i64::try_from(ids.len() * 3 / 5).unwrap();
    assert_stock_is_conserved(&stack, "COFFEE-1KG", 10_000, sold).await;
    assert_stock_is_conserved(&stack, "GIFT-CARD-RARE", 0, 0).await;
}
