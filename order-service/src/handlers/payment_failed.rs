use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::PaymentFailed;

use super::advance;
use crate::domain::Happening;

/// The order will not be paid: it is cancelled.
pub struct CancelUnpaid;

impl TransactionalHandler for CancelUnpaid {
    type Event = PaymentFailed;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<PaymentFailed>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::PaymentFailed { reason: event.reason.clone() };
        let detail = Some(event.reason.clone());
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
