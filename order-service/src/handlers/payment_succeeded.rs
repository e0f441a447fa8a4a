use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::PaymentSucceeded;

use super::advance;
use crate::domain::Happening;

/// The order is paid; with its stock reserved, it is complete.
pub struct NotePayment;

impl TransactionalHandler for NotePayment {
    type Event = PaymentSucceeded;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<PaymentSucceeded>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::PaymentSucceeded(event.payment_id);
        let detail = Some(event.amount.to_string());
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
