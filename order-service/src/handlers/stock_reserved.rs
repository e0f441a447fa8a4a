use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::StockReserved;

use super::advance;
use crate::domain::Happening;

/// The stock is set aside; with the payment in, the order is complete.
pub struct NoteReservation;

impl TransactionalHandler for NoteReservation {
    type Event = StockReserved;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<StockReserved>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::StockReserved;
        let detail = Some(super::listed(&event.items));
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
