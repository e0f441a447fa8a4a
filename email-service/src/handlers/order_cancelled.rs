use event_runtime::{Delivery, EffectHandler, HandlerError, Outbox, Prepared, RetryPolicy, Tx};
use shared_events::OrderCancelled;

use super::{Addressed, Post, RETRY};
use crate::letter::Letter;

/// Says why an order was cancelled.
pub struct ExplainCancellation(pub Post);

impl EffectHandler for ExplainCancellation {
    type Event = OrderCancelled;
    type Plan = Addressed;
    type Outcome = Addressed;

    fn retry(&self) -> RetryPolicy {
        RETRY
    }

    async fn prepare(
        &self,
        tx: &mut Tx,
        delivery: &Delivery<OrderCancelled>,
    ) -> Result<Prepared<Addressed>, HandlerError> {
        Ok(self.0.prepare(tx, delivery, Letter::notice(&delivery.event)).await?)
    }

    async fn effect(&self, plan: &Addressed, delivery: &Delivery<OrderCancelled>) -> Result<Addressed, HandlerError> {
        Ok(self.0.send(plan, delivery).await?)
    }

    async fn complete(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCancelled>,
        sent: Addressed,
    ) -> Result<(), HandlerError> {
        Ok(self.0.complete(tx, outbox, delivery, sent).await?)
    }

    async fn exhausted(
        &self,
        tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<OrderCancelled>,
        error: &HandlerError,
    ) -> Result<(), HandlerError> {
        Ok(self.0.give_up(tx, delivery, &Letter::notice(&delivery.event), error).await?)
    }
}
