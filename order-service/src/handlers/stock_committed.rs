use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::StockCommitted;

use super::advance;
use crate::domain::Happening;

/// What was set aside is sold.
pub struct NoteSale;

impl TransactionalHandler for NoteSale {
    type Event = StockCommitted;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<StockCommitted>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::StockCommitted;
        let detail = Some(super::listed(&event.items));
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
