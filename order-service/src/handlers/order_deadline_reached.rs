use event_runtime::{Delivery, HandlerError, Outbox, RetryPolicy, TransactionalHandler, Tx};
use shared_events::OrderDeadlineReached;

use super::advance;
use crate::domain::Happening;

/// The order's time is up: a pending order is cancelled.
pub struct CancelOverdue;

impl TransactionalHandler for CancelOverdue {
    type Event = OrderDeadlineReached;

    /// Until it works: this is what ends the orders for which everything else went wrong. A dead letter here would leave
    /// an order pending for ever.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::unlimited()
    }

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
