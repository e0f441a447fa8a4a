use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::StockReleased;

use super::advance;
use crate::domain::Happening;

/// What was set aside is for sale again; a pending order is cancelled.
pub struct NoteRelease;

impl TransactionalHandler for NoteRelease {
    type Event = StockReleased;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<StockReleased>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::StockReleased;
        let detail = Some(super::listed(&event.items));
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
