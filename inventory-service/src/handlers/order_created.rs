use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::{OrderCreated, StockRejected, StockReserved};

use super::listed;
use crate::{
    domain::{self, OnCreated, Rejection},
    error::StockError,
    store,
};

/// Sets all items of an order aside, or says why not.
pub struct ReserveStock;

impl TransactionalHandler for ReserveStock {
    type Event = OrderCreated;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCreated>,
    ) -> Result<(), HandlerError> {
        if !domain::reserves_on_created(delivery.event.pattern) {
            return Ok(());
        }
        Ok(reserve(tx, outbox, delivery).await?)
    }

    /// Without an answer the order would stay open until its deadline.
    async fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCreated>,
        _error: &HandlerError,
    ) -> Result<(), HandlerError> {
        if !domain::reserves_on_created(delivery.event.pattern) {
            return Ok(());
        }
        let (state, _) = store::lock(tx, delivery.event.order_id, delivery.now).await?;
        match domain::on_created(state, &delivery.event, delivery.now) {
            OnCreated::Reserve(_) => Ok(reject(tx, outbox, delivery, Rejection::Failed).await?),
            OnCreated::Reject(reason) => Ok(reject(tx, outbox, delivery, reason).await?),
            OnCreated::Answered => Ok(()),
        }
    }
}

async fn reserve(tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<OrderCreated>) -> Result<(), StockError> {
    let order_id = delivery.event.order_id;
    let (state, _) = store::lock(tx, order_id, delivery.now).await?;
    let items = match domain::on_created(state, &delivery.event, delivery.now) {
        OnCreated::Reserve(items) => items,
        OnCreated::Reject(reason) => return reject(tx, outbox, delivery, reason).await,
        OnCreated::Answered => {
            tracing::info!(order = %order_id, state = state.as_str(), "order.created again, answered before");
            return Ok(());
        }
    };
    if let Err(reason) = store::reserve(tx, order_id, &items, delivery.now).await? {
        return reject(tx, outbox, delivery, reason).await;
    }
    tracing::info!(order = %order_id, items = listed(&items), "stock reserved");
    outbox.publish(&StockReserved { order_id, items })?;
    Ok(())
}

async fn reject(
    tx: &mut Tx,
    outbox: &mut Outbox,
    delivery: &Delivery<OrderCreated>,
    reason: Rejection,
) -> Result<(), StockError> {
    let order_id = delivery.event.order_id;
    store::save_rejected(tx, order_id, &reason, delivery.now).await?;
    tracing::info!(order = %order_id, %reason, "stock rejected");
    outbox.publish(&StockRejected { order_id, reason: reason.to_string() })?;
    Ok(())
}
