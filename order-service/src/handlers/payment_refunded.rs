use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::PaymentRefunded;

use super::advance;
use crate::domain::Happening;

/// The customer has the money back; a pending order is cancelled.
pub struct NoteRefund;

impl TransactionalHandler for NoteRefund {
    type Event = PaymentRefunded;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<PaymentRefunded>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::PaymentRefunded(event.payment_id);
        let detail = Some(event.amount.to_string());
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
