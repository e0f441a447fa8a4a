//! Whatever happens in whatever order, every piece is somewhere, and at rest none is reserved.

use std::collections::BTreeMap;

use event_runtime::{Database, HandlerError, outbox::OutboxRow};
use inventory_service::{handlers::MoveStock, store};
use proptest::{collection::vec, prelude::*, sample::select};
use shared_events::{Event, OrderId, StockCommitted, StockReleased, StockReserved};
use test_support::handling::{delivery, handle, published};

use crate::{NOW, cancelled, completed, created, stock};

/// What happens, to the order with this number.
#[derive(Clone, Debug)]
enum Step {
    Created(usize, Vec<(&'static str, u32)>),
    Cancelled(usize),
    Completed(usize),
    Adjusted(&'static str, i64),
}

const ORDERS: usize = 6;
const SKUS: [&str; 4] = ["COFFEE-1KG", "MUG-BLUE", "GIFT-CARD-RARE", "NO-SUCH-SKU"];

fn steps() -> impl Strategy<Value = Step> {
    let sku = || select(SKUS.to_vec());
    prop_oneof![
        3 => (0..ORDERS, vec((sku(), 0_u32..80), 0..4)).prop_map(|(order, of)| Step::Created(order, of)),
        1 => (0..ORDERS).prop_map(Step::Cancelled),
        2 => (0..ORDERS).prop_map(Step::Completed),
        1 => (sku(), 0_i64..200).prop_map(|(sku, available)| Step::Adjusted(sku, available)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_piece_is_made_or_lost(steps in vec(steps(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let (_place, database) = stock().await;
    let orders: Vec<OrderId> = (0..ORDERS).map(|_| OrderId::new()).collect();
    let mut said = Said::default();
    for step in steps {
        said.note(&take(&database, &orders, &step).await);
        said.holds(&database, &step).await;
    }
    // The saga ends every order; one that sold what it had is not cancelled any more.
    for order in &orders {
        let rows = tolerated(handle(&database, &MoveStock, &delivery(cancelled(*order), NOW)).await);
        said.note(&rows);
    }
    for level in store::all(database.pool()).await.unwrap() {
        assert_eq!(level.reserved, 0, "{level:?}");
    }
    said.holds(&database, &"the end").await;
}

async fn take(database: &Database, orders: &[OrderId], step: &Step) -> Vec<OutboxRow> {
    match step {
        Step::Created(order, of) => {
            handle(database, &MoveStock, &delivery(created(orders[*order], of), NOW)).await.unwrap()
        }
        Step::Cancelled(order) => {
            tolerated(handle(database, &MoveStock, &delivery(cancelled(orders[*order]), NOW)).await)
        }
        Step::Completed(order) => {
            tolerated(handle(database, &MoveStock, &delivery(completed(orders[*order]), NOW)).await)
        }
        Step::Adjusted(sku, available) => {
            let mut tx = database.begin().await.unwrap();
            store::set_available(&mut tx, sku, *available).await.unwrap();
            tx.commit().await.unwrap();
            Vec::new()
        }
    }
}

/// Steps come in orders that no saga makes: those are rejected.
fn tolerated(outcome: Result<Vec<OutboxRow>, HandlerError>) -> Vec<OutboxRow> {
    outcome.unwrap_or_else(|error| {
        assert!(matches!(error, HandlerError::Reject(_)), "{error:?}");
        Vec::new()
    })
}

/// What the events say is reserved and sold: a second account, kept apart from the tables.
#[derive(Default)]
struct Said {
    reserved: BTreeMap<String, i64>,
    sold: BTreeMap<String, i64>,
}

impl Said {
    fn note(&mut self, rows: &[OutboxRow]) {
        for row in rows {
            let (items, reserved, sold) = match row.envelope.event_type.as_str() {
                StockReserved::TYPE => (published::<StockReserved>(row).items, 1, 0),
                StockReleased::TYPE => (published::<StockReleased>(row).items, -1, 0),
                StockCommitted::TYPE => (published::<StockCommitted>(row).items, -1, 1),
                _ => continue,
            };
            for item in items {
                *self.reserved.entry(item.sku.clone()).or_default() += reserved * i64::from(item.quantity);
                *self.sold.entry(item.sku).or_default() += sold * i64::from(item.quantity);
            }
        }
    }

    async fn holds(&self, database: &Database, after: &impl std::fmt::Debug) {
        for level in store::all(database.pool()).await.unwrap() {
            assert!(level.adds_up() && level.available >= 0, "after {after:?}: {level:?}");
            let said = [&self.reserved, &self.sold].map(|account| account.get(&level.sku).copied().unwrap_or_default());
            assert_eq!([level.reserved, level.sold], said, "after {after:?}: {level:?}");
        }
    }
}
