//! One order from its first event to its last, in every order in which events can come.

use std::time::Duration;

use event_runtime::{BatchHandler as _, Database, HandlerError};
use inventory_service::{
    handlers::{MoveStock, OrderNews},
    store,
};
use shared_events::{
    Event, OrderCreated, OrderId, Pattern, StockCommitted, StockItem, StockRejected, StockReleased, StockReserved,
};
use test_support::handling::{delivery, exhaust, handle, handle_all, published};

use crate::{NOW, cancelled, completed, created, pieces, stock};

async fn reserve(database: &Database, order: OrderId, of: &[(&str, u32)]) -> StockReserved {
    let rows = handle(database, &MoveStock, &delivery(created(order, of), NOW)).await.unwrap();
    published(&rows[0])
}

async fn rejection(database: &Database, order: OrderId, of: &[(&str, u32)]) -> String {
    let rows = handle(database, &MoveStock, &delivery(created(order, of), NOW)).await.unwrap();
    assert_eq!(rows.len(), 1);
    published::<StockRejected>(&rows[0]).reason
}

#[tokio::test]
async fn the_first_products_are_there_with_names_prices_and_stock() {
    let (_place, database) = stock().await;
    let all = store::all(database.pool()).await.unwrap();
    assert_eq!(all.len(), 12);
    assert!(all.iter().all(|level| level.adds_up() && level.price.minor > 0 && !level.name.is_empty()));
    let table = [
        ("COFFEE-1KG", "Coffee beans, 1 kg", 1890, 10_000),
        ("MUG-BLUE", "Blue mug", 1250, 100),
        ("GIFT-CARD-RARE", "Collector gift card", 15_000, 0),
    ];
    for (sku, name, price, seeded) in table {
        let level = crate::level(&database, sku).await;
        assert_eq!(
            (level.name.as_str(), level.price.minor, level.seeded, level.available),
            (name, price, seeded, seeded)
        );
    }
}

#[tokio::test]
async fn a_second_start_leaves_the_stock_as_it_is() {
    let (place, database) = stock().await;
    reserve(&database, OrderId::new(), &[("MUG-BLUE", 40)]).await;
    let database = place.migrated(store::MIGRATIONS).await;
    assert_eq!(pieces(&database, "MUG-BLUE").await, (60, 40, 0));
}

#[tokio::test]
async fn a_completed_order_sells_what_was_reserved() {
    let (_place, database) = stock().await;
    let order = OrderId::new();
    let reserved = reserve(&database, order, &[("MUG-BLUE", 2), ("COFFEE-1KG", 1), ("MUG-BLUE", 1)]).await;
    let expected =
        [("COFFEE-1KG", 1), ("MUG-BLUE", 3)].map(|(sku, quantity)| StockItem { sku: sku.to_owned(), quantity });
    assert_eq!((reserved.order_id, &reserved.items[..]), (order, &expected[..]));
    assert_eq!(pieces(&database, "MUG-BLUE").await, (97, 3, 0));

    let rows = handle(&database, &MoveStock, &delivery(completed(order), NOW)).await.unwrap();
    assert_eq!(published::<StockCommitted>(&rows[0]).items, expected);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (97, 0, 3));
    assert_eq!(pieces(&database, "COFFEE-1KG").await, (9_999, 0, 1));
}

#[tokio::test]
async fn a_cancelled_order_gives_back_what_was_reserved() {
    let (_place, database) = stock().await;
    let order = OrderId::new();
    let reserved = reserve(&database, order, &[("MUG-BLUE", 5)]).await;
    let rows = handle(&database, &MoveStock, &delivery(cancelled(order), NOW)).await.unwrap();
    assert_eq!(published::<StockReleased>(&rows[0]).items, reserved.items);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}

#[tokio::test]
async fn an_order_that_cannot_be_served_whole_is_not_served_at_all() {
    let (_place, database) = stock().await;
    let table: &[(&[(&str, u32)], &str)] = &[
        (&[("GIFT-CARD-RARE", 1)], "GIFT-CARD-RARE is out of stock"),
        (&[("COFFEE-1KG", 1), ("GIFT-CARD-RARE", 1), ("MUG-BLUE", 1)], "GIFT-CARD-RARE is out of stock"),
        (&[("COFFEE-1KG", 1), ("MUG-BLUE", 101)], "MUG-BLUE is out of stock: only 100 left"),
        (&[("MUG-BLUE", 60), ("MUG-BLUE", 60)], "MUG-BLUE is out of stock: only 100 left"),
        (&[("COFFEE-1KG", 1), ("MUG-RED", 1)], "MUG-RED is not sold here"),
        (&[("mug-blue", 1)], "mug-blue is not sold here"),
    ];
    for (of, reason) in table {
        assert_eq!(&rejection(&database, OrderId::new(), of).await, reason, "{of:?}");
    }
    for (sku, available) in [("COFFEE-1KG", 10_000), ("MUG-BLUE", 100)] {
        assert_eq!(pieces(&database, sku).await, (available, 0, 0));
    }
}

#[tokio::test]
async fn orders_that_are_handled_together_share_what_is_there() {
    let (_place, database) = stock().await;
    let before = OrderId::new();
    reserve(&database, before, &[("MUG-BLUE", 30)]).await;
    let of = |pieces| {
        delivery(created(OrderId::new(), &[("MUG-BLUE", pieces), ("COFFEE-1KG", 1)]), NOW).map(OrderNews::from)
    };
    let gone = delivery(cancelled(before), NOW).map(OrderNews::from);
    let deliveries = [of(60), of(20), of(10), gone, of(30), of(1)];
    let rows = handle_all(&database, &MoveStock, &deliveries).await.unwrap();

    let said: Vec<&str> = rows.iter().map(|rows| rows[0].envelope.event_type.as_str()).collect();
    let reserved = StockReserved::TYPE;
    assert_eq!(said, [reserved, StockRejected::TYPE, reserved, StockReleased::TYPE, reserved, StockRejected::TYPE]);
    assert_eq!(published::<StockRejected>(&rows[1][0]).reason, "MUG-BLUE is out of stock: only 10 left");
    assert_eq!(published::<StockRejected>(&rows[5][0]).reason, "MUG-BLUE is out of stock");
    for (rows, delivery) in rows.iter().zip(&deliveries) {
        assert_eq!((rows.len(), rows[0].envelope.causation_id), (1, Some(delivery.envelope.id)));
    }
    assert_eq!(pieces(&database, "MUG-BLUE").await, (0, 100, 0));
    assert_eq!(pieces(&database, "COFFEE-1KG").await, (9_997, 3, 0));
}

#[tokio::test]
async fn a_rejected_order_that_is_cancelled_says_nothing_more() {
    let (_place, database) = stock().await;
    let order = OrderId::new();
    rejection(&database, order, &[("GIFT-CARD-RARE", 1)]).await;
    assert_eq!(handle(&database, &MoveStock, &delivery(cancelled(order), NOW)).await.unwrap(), []);
}

#[tokio::test]
async fn an_order_created_after_its_cancellation_is_refused() {
    let (_place, database) = stock().await;
    let order = OrderId::new();
    assert_eq!(handle(&database, &MoveStock, &delivery(cancelled(order), NOW)).await.unwrap(), []);
    assert_eq!(rejection(&database, order, &[("MUG-BLUE", 1)]).await, "the order was cancelled");
    assert_eq!(handle(&database, &MoveStock, &delivery(cancelled(order), NOW)).await.unwrap(), []);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}

#[tokio::test]
async fn an_expired_order_is_refused() {
    let (_place, database) = stock().await;
    let created = created(OrderId::new(), &[("MUG-BLUE", 1)]);
    let late = created.expires_at + Duration::from_millis(1);
    let rows = handle(&database, &MoveStock, &delivery(created, late)).await.unwrap();
    assert_eq!(published::<StockRejected>(&rows[0]).reason, "the order came too late to be served");
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}

#[tokio::test]
async fn an_order_of_a_pattern_of_its_own_is_left_alone() {
    let (_place, database) = stock().await;
    let mut created = created(OrderId::new(), &[("MUG-BLUE", 1)]);
    created.pattern = Pattern::Unknown;
    let delivery = delivery(created, NOW);
    assert_eq!(handle(&database, &MoveStock, &delivery).await.unwrap(), []);
    let error = HandlerError::retry("nothing worked");
    assert_eq!(exhaust(&database, &MoveStock, &delivery, &error).await.unwrap(), []);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}

/// The runtime deduplicates by event id; this is about another event that says the same, as after a replay from before
/// the inbox's memory.
#[tokio::test]
async fn the_same_thing_said_again_changes_nothing() {
    let (_place, database) = stock().await;
    let (sold, given_back) = (OrderId::new(), OrderId::new());
    reserve(&database, sold, &[("MUG-BLUE", 3)]).await;
    reserve(&database, given_back, &[("MUG-BLUE", 4)]).await;
    for round in 0..3 {
        let commits = handle(&database, &MoveStock, &delivery(completed(sold), NOW)).await.unwrap();
        let releases = handle(&database, &MoveStock, &delivery(cancelled(given_back), NOW)).await.unwrap();
        assert_eq!((commits.len(), releases.len()), if round == 0 { (1, 1) } else { (0, 0) });
        for order in [sold, given_back] {
            let again = handle(&database, &MoveStock, &delivery(created(order, &[("MUG-BLUE", 3)]), NOW)).await;
            assert_eq!(again.unwrap(), []);
        }
        assert_eq!(pieces(&database, "MUG-BLUE").await, (97, 0, 3));
    }
}

#[tokio::test]
async fn what_cannot_follow_is_rejected_and_stores_nothing() {
    let (_place, database) = stock().await;
    let (open, sold, given_back) = (OrderId::new(), OrderId::new(), OrderId::new());
    reserve(&database, sold, &[("MUG-BLUE", 1)]).await;
    handle(&database, &MoveStock, &delivery(completed(sold), NOW)).await.unwrap();
    reserve(&database, given_back, &[("MUG-BLUE", 1)]).await;
    handle(&database, &MoveStock, &delivery(cancelled(given_back), NOW)).await.unwrap();
    let errors = [
        handle(&database, &MoveStock, &delivery(completed(open), NOW)).await.unwrap_err(),
        handle(&database, &MoveStock, &delivery(completed(given_back), NOW)).await.unwrap_err(),
        handle(&database, &MoveStock, &delivery(cancelled(sold), NOW)).await.unwrap_err(),
    ];
    let expected = [
        format!("order.completed for order {open}, whose reservation is open"),
        format!("order.completed for order {given_back}, whose reservation is released"),
        format!("order.cancelled for order {sold}, whose reservation is committed"),
    ];
    for (error, expected) in errors.iter().zip(expected) {
        assert!(matches!(error, HandlerError::Reject(_)), "{error:?}");
        assert_eq!(error.source_error().to_string(), expected);
    }
    assert_eq!(pieces(&database, "MUG-BLUE").await, (99, 0, 1));
    // The refused completion left no trace, so the order can still be served.
    reserve(&database, open, &[("MUG-BLUE", 1)]).await;
}

#[tokio::test]
async fn an_order_whose_handling_was_given_up_is_rejected_for_good() {
    let (_place, database) = stock().await;
    let order = OrderId::new();
    let delivery = delivery(created(order, &[("MUG-BLUE", 1)]), NOW);
    let error = HandlerError::retry("nothing worked");
    let rows = exhaust(&database, &MoveStock, &delivery, &error).await.unwrap();
    assert_eq!(published::<StockRejected>(&rows[0]).reason, "the items could not be reserved");
    // A replay of the dead letter comes too late: the saga has heard the rejection.
    assert_eq!(handle(&database, &MoveStock, &delivery).await.unwrap(), []);
    assert_eq!(exhaust(&database, &MoveStock, &delivery, &error).await.unwrap(), []);
    assert_eq!(pieces(&database, "MUG-BLUE").await, (100, 0, 0));
}

#[tokio::test]
async fn an_answer_carries_on_what_the_question_began() {
    let (_place, database) = stock().await;
    let delivery = delivery(created(OrderId::new(), &[("MUG-BLUE", 1)]), NOW);
    let rows = handle(&database, &MoveStock, &delivery).await.unwrap();
    let envelope = &rows[0].envelope;
    assert_eq!(
        (envelope.correlation_id, envelope.causation_id),
        (delivery.envelope.correlation_id, Some(delivery.envelope.id))
    );
    assert_eq!((rows[0].topic, rows[0].key.clone()), (StockReserved::TOPIC, delivery.event.key()));
    assert!(!MoveStock.retry(OrderCreated::TYPE).is_last(1), "a failure of the database is tried again");
}
