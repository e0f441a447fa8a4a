use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use event_runtime::http::Problem;
use jiff::Timestamp;
use shared_events::{CorrelationId, Money, OrderCreated, OrderItem, Pattern};
use test_support::TempDatabase;
use tokio::net::TcpListener;

use super::*;
use crate::domain::{Order, Saga};

type Outcome = oneshot::Receiver<Result<Placed, Problem>>;

fn waiting(id: OrderId) -> (Waiting, Outcome) {
    let now = Timestamp::UNIX_EPOCH;
    let items = vec![OrderItem { sku: "COFFEE-1KG".to_owned(), quantity: 1, unit_price: Money::eur(1250) }];
    let customer = "ada@example.org".to_owned();
    let mut outbox = Outbox::root("order-service", CorrelationId::new(), now);
    let created = OrderCreated {
        order_id: id,
        user_id: None,
        customer_email: customer.clone(),
        items: items.clone(),
        total: Money::eur(1250),
        payment_token: "tok_visa".to_owned(),
        pattern: Pattern::Choreography,
        expires_at: now,
    };
    outbox.publish(&created).unwrap();
    let entry = Entry::of_outbox(&outbox.rows()[0], String::new());
    let order = Order { id, customer, items, total: Money::eur(1250), saga: Saga::default() };
    let stored = StoredOrder { order, created_at: now, expires_at: now, ended_at: None };
    let request = Request { idempotency_key: None, fingerprint: String::new() };
    let (answer, outcome) = oneshot::channel();
    (Waiting { order: NewOrder { stored, request, entry, outbox }, answer }, outcome)
}

#[tokio::test]
async fn of_a_batch_that_fails_whoever_has_gone_meanwhile_gets_no_order() {
    let files = TempDatabase::new();
    let database = files.migrated(store::MIGRATIONS).await;
    let id = OrderId::new();
    // The second has the id of the first, and fails the batch.
    let ((good, stored), (bad, failed), (gone, left)) = (waiting(id), waiting(id), waiting(OrderId::new()));
    drop(left);
    store_together(&database, vec![good, bad, gone]).await;
    assert!(matches!(stored.await.unwrap(), Ok(Placed::Stored)));
    assert!(failed.await.unwrap().is_err());
    let orders: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM orders").fetch_one(database.pool()).await.unwrap();
    assert_eq!(orders, 1);
}

#[tokio::test]
async fn a_database_that_goes_away_is_asked_once_and_not_by_every_order_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://{}/orders?sslmode=disable", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    // Hangs up on whoever connects.
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let database = Database::connect_lazy(&url).unwrap();
    let (batch, outcomes): (Vec<_>, Vec<_>) = (0..3).map(|_| waiting(OrderId::new())).unzip();
    store_each(&database, batch).await;
    for outcome in outcomes {
        let problem = outcome.await.unwrap().unwrap_err();
        assert!(format!("{problem:?}").contains("503"), "{problem:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
