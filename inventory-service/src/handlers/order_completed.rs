use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::{Event, OrderCompleted, StockCommitted};

use super::listed;
use crate::{
    domain::{self, OnEnded},
    error::StockError,
    store,
};

/// Makes what was set aside for a completed order sold.
pub struct CommitStock;

impl TransactionalHandler for CommitStock {
    type Event = OrderCompleted;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCompleted>,
    ) -> Result<(), HandlerError> {
        Ok(commit(tx, outbox, delivery).await?)
    }
}

async fn commit(tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<OrderCompleted>) -> Result<(), StockError> {
    let order_id = delivery.event.order_id;
    let (state, items) = store::lock(tx, order_id, delivery.now).await?;
    match domain::on_completed(state) {
        OnEnded::Move => {
            store::commit(tx, order_id, &items, delivery.now).await?;
            tracing::info!(order = %order_id, items = listed(&items), "stock committed");
            outbox.publish(&StockCommitted { order_id, items })?;
        }
        OnEnded::Nothing => {}
        // A completed order without a reservation would be a sale of nothing.
        OnEnded::Remember | OnEnded::Contradiction => {
            return Err(StockError::Contradiction { order: order_id, event: OrderCompleted::TYPE, state });
        }
    }
    Ok(())
}
