//! Handlers and HTTP against a database: SQLite, or the PostgreSQL server that `TEST_DATABASE_URL` names.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod concurrency;
mod conservation;
mod http;
mod reservations;
mod service;

use event_runtime::Database;
use inventory_service::{domain::StockLevel, store};
use jiff::Timestamp;
use shared_events::{Money, OrderCancelled, OrderCompleted, OrderCreated, OrderId, OrderItem, Pattern, PaymentId};
use test_support::TempDatabase;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A seeded stock, with the database it is in.
async fn stock() -> (TempDatabase, Database) {
    let place = TempDatabase::any().await;
    let database = place.migrated(store::MIGRATIONS).await;
    (place, database)
}

async fn level(database: &Database, sku: &str) -> StockLevel {
    store::find(database.pool(), sku).await.unwrap().unwrap()
}

/// Where the pieces of a product are: available, reserved, sold.
async fn pieces(database: &Database, sku: &str) -> (i64, i64, i64) {
    let level = level(database, sku).await;
    assert!(level.adds_up(), "{level:?}");
    (level.available, level.reserved, level.sold)
}

fn items(of: &[(&str, u32)]) -> Vec<OrderItem> {
    let item = |(sku, quantity): &(&str, u32)| OrderItem {
        sku: (*sku).to_owned(),
        quantity: *quantity,
        unit_price: Money::eur(100),
    };
    of.iter().map(item).collect()
}

fn created(order_id: OrderId, of: &[(&str, u32)]) -> OrderCreated {
    OrderCreated {
        order_id,
        user_id: None,
        customer_email: "ann@example.com".to_owned(),
        items: items(of),
        total: Money::eur(100),
        payment_token: "tok_visa".to_owned(),
        pattern: Pattern::Choreography,
        expires_at: NOW,
    }
}

/// Handlers go by what they reserved, so the items of an order's end do not matter here.
fn cancelled(order_id: OrderId) -> OrderCancelled {
    OrderCancelled {
        order_id,
        customer_email: "ann@example.com".to_owned(),
        items: items(&[]),
        total: Money::eur(100),
        reason: "the card was declined".to_owned(),
    }
}

fn completed(order_id: OrderId) -> OrderCompleted {
    OrderCompleted {
        order_id,
        customer_email: "ann@example.com".to_owned(),
        items: items(&[]),
        total: Money::eur(100),
        payment_id: PaymentId::new(),
    }
}
