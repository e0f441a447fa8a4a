//! `order.cancelled` → whatever was charged is given back, sooner or later: it is tried until it works.
//!
//! A gateway that was asked to charge and never answered may charge yet. Such an order is looked up until the gateway
//! has had time to settle; only then is it certain that there is nothing to give back.

use std::time::Duration;

use event_runtime::{Clock, Delivery, EffectHandler, HandlerError, Outbox, Prepared, RetryPolicy, Tx};
use jiff::{SignedDuration, Timestamp};
use shared_events::{OrderCancelled, PaymentRefunded};

use crate::{
    domain::{OnCancelled, Payment, State},
    error::PaymentError,
    gateway::{Charge, Gateway},
    handlers::{asks_until, longest_attempt},
    store,
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Gives back what was charged for cancelled orders.
pub struct RefundOrder {
    gateway: Gateway,
    clock: Clock,
    settles_after: Duration,
}

/// What is to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// This charge.
    Refund {
        /// The gateway's id.
        charge_id: String,
    },
    /// The charge there may be.
    LookUp {
        /// Since when the gateway may be charging without anybody waiting for its answer.
        unsettled_since: Timestamp,
    },
}

/// What was undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The charge was given back.
    Refunded(Charge),
    /// There was no charge, and there will be none.
    NoCharge,
}

impl RefundOrder {
    /// A handler that refunds at `gateway`, which may work on a charge for `settles_after` after nobody waits for it.
    pub fn new(gateway: Gateway, clock: Clock, settles_after: Duration) -> RefundOrder {
        RefundOrder { gateway, clock, settles_after }
    }

    fn is_settled(&self, unsettled_since: Timestamp) -> bool {
        // What is known is when the attempt began; its request may have gone out as late as the attempt's end.
        let settles_after = longest_attempt(&self.gateway).saturating_add(self.settles_after);
        let settles_after = SignedDuration::try_from(settles_after).unwrap_or(SignedDuration::MAX);
        self.clock.now().duration_since(unsettled_since) > settles_after
    }
}

impl EffectHandler for RefundOrder {
    type Event = OrderCancelled;
    type Plan = Undo;
    type Outcome = Undone;

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::unlimited().backoff(FIRST_PAUSE, LONGEST_PAUSE)
    }

    async fn prepare(&self, tx: &mut Tx, delivery: &Delivery<OrderCancelled>) -> Result<Prepared<Undo>, HandlerError> {
        let order_id = delivery.event.order_id;
        let stored = store::lock(tx, order_id).await?;
        let mut payment = stored.unwrap_or_else(|| Payment::new(order_id, None, delivery.now));
        let state_before = payment.state;
        let plan = match payment.on_cancelled(delivery.now) {
            OnCancelled::Nothing => Prepared::Nothing,
            OnCancelled::Refund(charge_id) => Prepared::Do(Undo::Refund { charge_id }),
            OnCancelled::LookUp { unsettled_since } => Prepared::Do(Undo::LookUp { unsettled_since }),
        };
        if payment.state != state_before && payment.state == State::Cancelled {
            tracing::info!(order = %order_id, "cancelled before it was charged");
        }
        store::save(tx, &payment).await?;
        Ok(plan)
    }

    async fn effect(&self, undo: &Undo, delivery: &Delivery<OrderCancelled>) -> Result<Undone, HandlerError> {
        let (order, until) = (delivery.event.order_id, asks_until(delivery));
        let open = |source| PaymentError::Gateway { order, source };
        let charge_id = match undo {
            Undo::Refund { charge_id } => charge_id.clone(),
            Undo::LookUp { unsettled_since } => match self.gateway.find(order, until).await.map_err(open)? {
                Some(charge) => charge.id,
                None if self.is_settled(*unsettled_since) => return Ok(Undone::NoCharge),
                None => return Err(PaymentError::Unsettled(order).into()),
            },
        };
        Ok(Undone::Refunded(self.gateway.refund(&charge_id, until).await.map_err(open)?))
    }

    async fn complete(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCancelled>,
        undone: Undone,
    ) -> Result<(), HandlerError> {
        let order_id = delivery.event.order_id;
        let mut payment = store::lock(tx, order_id).await?.ok_or(PaymentError::Missing(order_id))?;
        match undone {
            Undone::Refunded(Charge { id, amount, .. }) => {
                tracing::info!(order = %order_id, %amount, charge = id, "refunded");
                payment.refunded(id, amount, delivery.now);
                outbox.publish(&PaymentRefunded { order_id, payment_id: payment.payment_id, amount })?;
            }
            Undone::NoCharge => {
                tracing::info!(order = %order_id, "nothing to refund: the gateway has no charge");
                payment.settled_without_charge(delivery.now);
            }
        }
        Ok(store::save(tx, &payment).await?)
    }
}
