//! Many orders at once. On SQLite transactions follow one another; on PostgreSQL they really meet.

use std::sync::Arc;

use event_runtime::{Database, HandlerError};
use futures_util::future::join_all;
use inventory_service::handlers::MoveStock;
use shared_events::{Event, OrderCreated, OrderId, StockReserved};
use test_support::handling::{delivery, handle};

use crate::{NOW, cancelled, created, pieces, stock};

/// Handles until it works, as the consumer would; true if the stock was reserved.
async fn reserve(database: Database, created: OrderCreated) -> bool {
    let delivery = delivery(created, NOW);
    for _ in 0..5 {
        match handle(&database, &MoveStock, &delivery).await {
            Ok(rows) => return rows.iter().any(|row| row.envelope.event_type == StockReserved::TYPE),
            Err(error) => assert!(matches!(error, HandlerError::Retry(_)), "{error:?}"),
        }
    }
    panic!("no reservation in five attempts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_orders_never_oversell_and_leave_less_than_one_order_needs() {
    let (_place, database) = stock().await;
    let orders = (0..40).map(|_| tokio::spawn(reserve(database.clone(), created(OrderId::new(), &[("MUG-BLUE", 7)]))));
    let served = join_all(orders).await.into_iter().filter(|served| *served.as_ref().unwrap()).count();
    assert_eq!(served, 14);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (2, 98, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orders_that_name_the_same_products_the_other_way_round_do_not_block_each_other() {
    let (_place, database) = stock().await;
    let there: &[(&str, u32)] = &[("COFFEE-1KG", 1), ("MUG-BLUE", 1), ("SCALE-POCKET", 1)];
    let back: &[(&str, u32)] = &[("SCALE-POCKET", 1), ("MUG-BLUE", 1), ("COFFEE-1KG", 1)];
    let orders = (0..40).map(|turn| {
        let created = created(OrderId::new(), if turn % 2 == 0 { there } else { back });
        let database = database.clone();
        // At the first attempt: rows are taken by sku, so there is no deadlock to repeat.
        tokio::spawn(async move { handle(&database, &MoveStock, &delivery(created, NOW)).await })
    });
    for order in join_all(orders).await {
        assert_eq!(order.unwrap().unwrap().len(), 1);
    }
    assert_eq!(pieces(&database, "MUG-BLUE").await, (60, 40, 0));
}

/// Two instances may both hold an order's record for a moment, after a partition has moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_order_handled_by_many_at_once_is_reserved_once() {
    let (_place, database) = stock().await;
    let created = Arc::new(created(OrderId::new(), &[("MUG-BLUE", 3)]));
    let attempts = (0..10).map(|_| tokio::spawn(reserve(database.clone(), OrderCreated::clone(&created))));
    let served = join_all(attempts).await.into_iter().filter(|served| *served.as_ref().unwrap()).count();
    assert_eq!(served, 1);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (97, 3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancellation_that_meets_its_order_leaves_nothing_reserved() {
    let (_place, database) = stock().await;
    let orders: Vec<OrderId> = (0..30).map(|_| OrderId::new()).collect();
    let creations =
        orders.iter().map(|order| tokio::spawn(reserve(database.clone(), created(*order, &[("MUG-BLUE", 1)]))));
    let cancellations = orders.iter().map(|order| {
        let (database, delivery) = (database.clone(), delivery(cancelled(*order), NOW));
        tokio::spawn(async move { handle(&database, &MoveStock, &delivery).await.map(drop).is_ok() })
    });
    let ends: Vec<_> = creations.chain(cancellations).collect();
    for end in join_all(ends).await {
        end.unwrap();
    }
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}
