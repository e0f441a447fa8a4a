use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::StockRejected;

use super::advance;
use crate::domain::Happening;

/// There is not enough stock: the order is cancelled.
pub struct CancelOutOfStock;

impl TransactionalHandler for CancelOutOfStock {
    type Event = StockRejected;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<StockRejected>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::StockRejected { reason: event.reason.clone() };
        let detail = Some(event.reason.clone());
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
