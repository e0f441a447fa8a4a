use event_runtime::{Delivery, EffectHandler, HandlerError, Outbox, Prepared, RetryPolicy, Tx};
use shared_events::OrderCompleted;

use super::{Addressed, Post, RETRY};
use crate::letter::Letter;

/// Confirms a completed order.
pub struct ConfirmOrder(pub Post);

impl EffectHandler for ConfirmOrder {
    type Event = OrderCompleted;
    type Plan = Addressed;
    type Outcome = Addressed;

    fn retry(&self) -> RetryPolicy {
        RETRY
    }

    async fn prepare(
        &self,
        tx: &mut Tx,
        delivery: &Delivery<OrderCompleted>,
    ) -> Result<Prepared<Addressed>, HandlerError> {
        Ok(self.0.prepare(tx, delivery, Letter::confirmation(&delivery.event)).await?)
    }

    async fn effect(&self, plan: &Addressed, delivery: &Delivery<OrderCompleted>) -> Result<Addressed, HandlerError> {
        Ok(self.0.send(plan, delivery).await?)
    }

    async fn complete(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCompleted>,
        sent: Addressed,
    ) -> Result<(), HandlerError> {
        Ok(self.0.complete(tx, outbox, delivery, sent).await?)
    }

    async fn exhausted(
        &self,
        tx: &mut Tx,
        _outbox: &mut Outbox,
        delivery: &Delivery<OrderCompleted>,
        error: &HandlerError,
    ) -> Result<(), HandlerError> {
        Ok(self.0.give_up(tx, delivery, &Letter::confirmation(&delivery.event), error).await?)
    }
}
