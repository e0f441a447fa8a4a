//! `order.created` → a charge.
//!
//! | the gateway | an attempt | the last attempt |
//! | --- | --- | --- |
//! | charged | `payment.succeeded` | the same |
//! | declined, or refuses the request | `payment.failed` | the same |
//! | asks to wait (429) | waits, while the order is alive; else the consumer pauses | the same |
//! | cannot be reached, or is away (503) | the consumer pauses; no attempt is used up | the same |
//! | does not answer, fails (5xx), or is at this key already (409) | tried again; the next attempt first asks by key | asks by key: a charge is `payment.succeeded`, none is `payment.failed`; if it cannot be asked, the consumer pauses |
//!
//! The crash window is between the gateway's answer and the commit of `complete`: the next attempt finds the charge by
//! key, as the key is the order's id.

use event_runtime::{Clock, Delivery, EffectHandler, HandlerError, Outbox, Prepared, Tx};
use jiff::Timestamp;
use shared_events::{OrderCreated, PaymentFailed, PaymentRefunded, PaymentSucceeded};

use crate::{
    domain::{EXPIRED, NO_ANSWER, OnCreated, Payment, State},
    error::PaymentError,
    gateway::{Charge, ChargeAnswer, ChargeStatus, Gateway, GatewayError},
    handlers::asks_until,
    store,
};

/// Said when the gateway does not take the request at all.
const REFUSED: &str = "payment provider refused the request";
/// Said when the database failed us before the gateway was asked.
const NOT_ATTEMPTED: &str = "payment could not be attempted";

/// Charges orders.
pub struct ChargeOrder {
    gateway: Gateway,
    clock: Clock,
}

/// What is to be done about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Say that it is not charged, without asking the gateway.
    Refuse(&'static str),
    /// It has expired: look for a charge, and give it back.
    LookUp {
        /// When the gateway was last asked to charge.
        asked_at: Timestamp,
    },
    /// Charge it.
    Charge {
        /// When the gateway was last asked to charge, if it was.
        asked_at: Option<Timestamp>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The money was taken.
    Charged(Charge),
    /// No money was taken.
    NotCharged {
        /// Why, in words a customer can read.
        reason: String,
        /// Since when the gateway may be charging without anybody waiting for its answer.
        unsettled_since: Option<Timestamp>,
    },
    /// Money had been taken for an order that ended meanwhile, and was given back.
    GivenBack(Charge),
}

impl ChargeOrder {
    /// A handler that charges at `gateway`.
    pub fn new(gateway: Gateway, clock: Clock) -> ChargeOrder {
        ChargeOrder { gateway, clock }
    }

    async fn charge(
        &self,
        asked_at: Option<Timestamp>,
        delivery: &Delivery<OrderCreated>,
    ) -> Result<Answer, PaymentError> {
        let (order, until) = (&delivery.event, asks_until(delivery));
        let open = |source| open(delivery, source);
        if asked_at.is_some()
            && let Some(charge) = self.gateway.find(order.order_id, until).await.map_err(open)?
        {
            return Ok(taken(charge));
        }
        let alive = || self.clock.now() <= order.expires_at;
        let answer = self.gateway.charge(order.order_id, order.total, &order.payment_token, until, alive).await;
        match answer {
            Ok(ChargeAnswer::Charged(charge)) => Ok(taken(charge)),
            // It is said of this request; an earlier one, whose answer nobody heard, may charge yet.
            Ok(ChargeAnswer::Declined { reason }) => Ok(Answer::NotCharged { reason, unsettled_since: asked_at }),
            Err(GatewayError::Refused { status, detail }) => {
                tracing::error!(order = %order.order_id, %status, detail, "the payment gateway refuses the request");
                Ok(Answer::NotCharged { reason: REFUSED.to_owned(), unsettled_since: asked_at })
            }
            // The gateway kept us waiting until nobody wants the order charged any more.
            Err(GatewayError::RateLimited(_)) if !alive() => match asked_at {
                Some(asked_at) => self.look_up(asked_at, delivery).await,
                None => Ok(Answer::NotCharged { reason: EXPIRED.to_owned(), unsettled_since: None }),
            },
            Err(GatewayError::NoAnswer(_) | GatewayError::Failed { .. }) if delivery.last_attempt => {
                let asked_at = self.clock.now();
                match self.gateway.find(order.order_id, until).await.map_err(open)? {
                    Some(charge) => Ok(taken(charge)),
                    None => Ok(Answer::NotCharged { reason: NO_ANSWER.to_owned(), unsettled_since: Some(asked_at) }),
                }
            }
            Err(source) => Err(open(source)),
        }
    }

    /// Gives back what was taken for an order that has expired.
    async fn look_up(&self, asked_at: Timestamp, delivery: &Delivery<OrderCreated>) -> Result<Answer, PaymentError> {
        let (until, open) = (asks_until(delivery), |source| open(delivery, source));
        match self.gateway.find(delivery.event.order_id, until).await.map_err(open)? {
            Some(charge) => Ok(Answer::GivenBack(self.gateway.refund(&charge.id, until).await.map_err(open)?)),
            None => Ok(Answer::NotCharged { reason: EXPIRED.to_owned(), unsettled_since: Some(asked_at) }),
        }
    }
}

/// A charge that the gateway has for an order that is alive. Was it given back, then the order ended meanwhile.
fn taken(charge: Charge) -> Answer {
    match charge.status {
        ChargeStatus::Succeeded => Answer::Charged(charge),
        ChargeStatus::Refunded => Answer::GivenBack(charge),
    }
}

fn open(delivery: &Delivery<OrderCreated>, source: GatewayError) -> PaymentError {
    let order = delivery.event.order_id;
    match source {
        GatewayError::NoAnswer(_) | GatewayError::Failed { .. } | GatewayError::NoTimeLeft if delivery.last_attempt => {
            PaymentError::Unknown { order, source }
        }
        source => PaymentError::Gateway { order, source },
    }
}

impl EffectHandler for ChargeOrder {
    type Event = OrderCreated;
    type Plan = Plan;
    type Outcome = Answer;

    async fn prepare(&self, tx: &mut Tx, delivery: &Delivery<OrderCreated>) -> Result<Prepared<Plan>, HandlerError> {
        let order = &delivery.event;
        let stored = store::lock(tx, order.order_id).await?;
        let mut payment = stored.unwrap_or_else(|| Payment::new(order.order_id, Some(order.total), delivery.now));
        let plan = match payment.on_created(order, delivery.now) {
            OnCreated::Ignore => return Ok(Prepared::Nothing),
            OnCreated::Refuse(reason) => Plan::Refuse(reason),
            OnCreated::LookUp { asked_at } => Plan::LookUp { asked_at },
            OnCreated::Charge { asked_at } => Plan::Charge { asked_at },
        };
        store::save(tx, &payment).await?;
        Ok(Prepared::Do(plan))
    }

    async fn effect(&self, plan: &Plan, delivery: &Delivery<OrderCreated>) -> Result<Answer, HandlerError> {
        let answer = match *plan {
            Plan::Refuse(reason) => Answer::NotCharged { reason: reason.to_owned(), unsettled_since: None },
            Plan::LookUp { asked_at } => self.look_up(asked_at, delivery).await?,
            Plan::Charge { asked_at } => self.charge(asked_at, delivery).await?,
        };
        Ok(answer)
    }

    async fn complete(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCreated>,
        answer: Answer,
    ) -> Result<(), HandlerError> {
        let order_id = delivery.event.order_id;
        let mut payment = store::lock(tx, order_id).await?.ok_or(PaymentError::Missing(order_id))?;
        let payment_id = payment.payment_id;
        match answer {
            Answer::Charged(Charge { id, amount, .. }) => {
                tracing::info!(order = %order_id, %amount, charge = id, "charged");
                payment.charged(id, amount, delivery.now);
                outbox.publish(&PaymentSucceeded { order_id, payment_id, amount })?;
            }
            Answer::NotCharged { reason, unsettled_since } => {
                tracing::info!(order = %order_id, reason, "not charged");
                payment.failed(&reason, unsettled_since, delivery.now);
                outbox.publish(&PaymentFailed { order_id, reason })?;
            }
            Answer::GivenBack(Charge { id, amount, .. }) => {
                tracing::info!(order = %order_id, %amount, charge = id, reason = EXPIRED, "refunded");
                payment.refunded(id, amount, delivery.now);
                outbox.publish(&PaymentFailed { order_id, reason: EXPIRED.to_owned() })?;
                outbox.publish(&PaymentRefunded { order_id, payment_id, amount })?;
            }
        }
        Ok(store::save(tx, &payment).await?)
    }

    /// A refusal asks nobody.
    fn proves_dependency(&self, plan: &Plan) -> bool {
        !matches!(plan, Plan::Refuse(_))
    }

    /// Says that the payment failed where the gateway was certainly not asked. Where it was, the order is cancelled at
    /// its deadline, and the cancellation looks for the charge and gives it back.
    async fn exhausted(
        &self,
        tx: &mut Tx,
        outbox: &mut Outbox,
        delivery: &Delivery<OrderCreated>,
        _error: &HandlerError,
    ) -> Result<(), HandlerError> {
        let order_id = delivery.event.order_id;
        let stored = store::lock(tx, order_id).await?;
        let mut payment = stored.unwrap_or_else(|| Payment::new(order_id, Some(delivery.event.total), delivery.now));
        if payment.state == State::Charging && payment.unsettled_since.is_none() {
            payment.failed(NOT_ATTEMPTED, None, delivery.now);
            outbox.publish(&PaymentFailed { order_id, reason: NOT_ATTEMPTED.to_owned() })?;
            store::save(tx, &payment).await?;
        }
        Ok(())
    }
}
