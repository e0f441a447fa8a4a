//! Services die by SIGKILL in the middle of their work, and two instances of each share it.

use std::time::Duration;

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
