use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::{Event, OrderCancelled, StockReleased};

use super::listed;
use crate::{
    domain::{self, OnEnded, State},
    error::StockError,
    store,
};

/// Makes what was set aside for a cancelled order available again.
pub struct ReleaseStock;

impl TransactionalHandler for ReleaseStock {
    type Event = OrderCancelled;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCancelled>,
    ) -> Result<(), HandlerError> {
        Ok(release(tx, outbox, delivery).await?)
    }
}

async fn release(tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<OrderCancelled>) -> Result<(), StockError> {
    let order_id = delivery.event.order_id;
    let (state, items) = store::lock(tx, order_id, delivery.now).await?;
    match domain::on_cancelled(state) {
        OnEnded::Move => {
            store::release(tx, order_id, &items, delivery.now).await?;
            tracing::info!(order = %order_id, items = listed(&items), "stock released");
            outbox.publish(&StockReleased { order_id, items })?;
        }
        OnEnded::Remember => store::save(tx, order_id, State::Cancelled, delivery.now).await?,
        OnEnded::Nothing => {}
        OnEnded::Contradiction => {
            return Err(StockError::Contradiction { order: order_id, event: OrderCancelled::TYPE, state });
        }
    }
    Ok(())
}
