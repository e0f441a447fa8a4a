use event_runtime::{Delivery, HandlerError, Outbox, TransactionalHandler, Tx};
use shared_events::OrderDeadlineReached;

use super::advance;
use crate::domain::Happening;

/// The order's time is up: a pending order is cancelled.
pub struct CancelOverdue;

impl TransactionalHandler for CancelOverdue {
    type Event = OrderDeadlineReached;

    async fn handle(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderDeadlineReached>,
    ) -> Result<(), HandlerError> {
        let event = &delivery.event;
        let happening = Happening::DeadlineReached;
        let detail = None;
        Ok(advance(tx, outbox, delivery, event.order_id, happening, detail).await?)
    }
}
