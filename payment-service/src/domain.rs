//! The states of a payment, and what an event makes of them. No I/O, no clock.
//!
//! | what is known | `order.created` | `order.cancelled` |
//! | --- | --- | --- |
//! | nothing | charge; refuse if the order has expired | note it as cancelled |
//! | charging, gateway never asked | charge; refuse if expired | note it as cancelled |
//! | charging, gateway asked before | look up by key, then charge; if expired only look up | note it as cancelled, look up |
//! | succeeded | nothing: it was said | refund |
//! | failed | nothing: it was said | nothing; look up if the gateway may still be charging |
//! | refunding | nothing | refund, again |
//! | refunded | nothing | nothing |
//! | cancelled | refuse | nothing; look up if the gateway may still be charging |
//!
//! A charge that a look-up finds is taken for the payment while the order is alive; once the order has expired or was
//! cancelled it is given back at once, and `payment.failed` (for an order nobody has cancelled yet) and
//! `payment.refunded` are said together.

use jiff::Timestamp;
use shared_events::{Money, OrderCreated, OrderId, Pattern, PaymentId};

/// Said of an order whose time had passed before it was charged.
pub const EXPIRED: &str = "order expired";
/// Said of an order that was cancelled before it was charged.
pub const CANCELLED: &str = "order cancelled";
/// Said when the gateway does not answer and confirms by key that there is no charge.
pub const NO_ANSWER: &str = "payment provider did not answer";

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The gateway is being asked, or its answer is not known.
    Charging,
    /// Charged.
    Succeeded,
    /// Not charged, and said so.
    Failed,
    /// Being given back.
    Refunding,
    /// Given back.
    Refunded,
    /// The order was cancelled before any charge was known.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Charging, State::Succeeded, State::Failed, State::Refunding, State::Refunded, State::Cancelled];

    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            State::Charging => "charging",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Refunding => "refunding",
            State::Refunded => "refunded",
            State::Cancelled => "cancelled",
        }
    }

    /// The state called `name`.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What is known about the payment of one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The order, and the idempotency key at the gateway.
    pub order_id: OrderId,
    /// Ours; the gateway has an id of its own.
    pub payment_id: PaymentId,
    /// Where it stands.
    pub state: State,
    /// What is charged; unknown for an order that was cancelled before it was created here.
    pub amount: Option<Money>,
    /// The gateway's id of the charge.
    pub charge_id: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// How often the gateway may have been asked to charge: for people who look at the row.
    pub attempts: u32,
    /// Since when the gateway may be charging without anybody waiting for its answer.
    pub unsettled_since: Option<Timestamp>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What to do about an `order.created`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnCreated {
    /// Nothing: it is not charged here, or what came of it was said.
    Ignore,
    /// Say that it is not charged, without asking the gateway.
    Refuse(&'static str),
    /// Look for a charge by key; take no money.
    LookUp {
        /// When the gateway was last asked to charge.
        asked_at: Timestamp,
    },
    /// Charge; look for an earlier charge first where there may be one.
    Charge {
        /// When the gateway was last asked to charge, if it was.
        asked_at: Option<Timestamp>,
    },
}

/// What to do about an `order.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnCancelled {
    /// Nothing was taken, or it was given back.
    Nothing,
    /// Give this charge back.
    Refund(String),
    /// Look for a charge by key and give it back.
    LookUp {
        /// Since when the gateway may be charging without anybody waiting for its answer.
        unsettled_since: Timestamp,
    },
}

impl Payment {
    /// A payment nobody has asked the gateway for.
    pub fn new(order_id: OrderId, amount: Option<Money>, now: Timestamp) -> Payment {
        Payment {
            order_id,
            payment_id: PaymentId::new(),
            state: State::Charging,
            amount,
            charge_id: None,
            reason: None,
            attempts: 0,
            unsettled_since: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Decides about an `order.created` and notes the decision.
    pub fn on_created(&mut self, event: &OrderCreated, now: Timestamp) -> OnCreated {
        if event.pattern != Pattern::Choreography {
            return OnCreated::Ignore;
        }
        match self.state {
            State::Succeeded | State::Failed | State::Refunding | State::Refunded => OnCreated::Ignore,
            State::Cancelled => OnCreated::Refuse(CANCELLED),
            State::Charging if now > event.expires_at => match self.unsettled_since {
                Some(asked_at) => OnCreated::LookUp { asked_at },
                None => OnCreated::Refuse(EXPIRED),
            },
            State::Charging => {
                let asked_at = self.unsettled_since.replace(now);
                self.attempts = self.attempts.saturating_add(1);
                self.updated_at = now;
                OnCreated::Charge { asked_at }
            }
        }
    }

    /// Decides about an `order.cancelled` and notes the decision.
    pub fn on_cancelled(&mut self, now: Timestamp) -> OnCancelled {
        match (self.state, &self.charge_id) {
            (State::Succeeded | State::Refunding, Some(charge_id)) => {
                let charge_id = charge_id.clone();
                self.change(State::Refunding, now);
                return OnCancelled::Refund(charge_id);
            }
            (State::Charging, _) => self.change(State::Cancelled, now),
            (State::Refunded | State::Failed | State::Cancelled | State::Succeeded | State::Refunding, _) => {}
        }
        match self.unsettled_since {
            Some(unsettled_since) => OnCancelled::LookUp { unsettled_since },
            None => OnCancelled::Nothing,
        }
    }

    /// The gateway charged.
    pub fn charged(&mut self, charge_id: String, amount: Money, now: Timestamp) {
        self.charge_id = Some(charge_id);
        self.amount = Some(amount);
        self.unsettled_since = None;
        self.change(State::Succeeded, now);
    }

    /// It is not charged; since `unsettled_since` the gateway may still be working on a request. An order that was
    /// cancelled stays so.
    pub fn failed(&mut self, reason: &str, unsettled_since: Option<Timestamp>, now: Timestamp) {
        if self.state != State::Cancelled {
            self.reason = Some(reason.to_owned());
            self.unsettled_since = unsettled_since;
            self.change(State::Failed, now);
        }
    }

    /// The gateway gave the charge back.
    pub fn refunded(&mut self, charge_id: String, amount: Money, now: Timestamp) {
        self.charge_id = Some(charge_id);
        self.amount = Some(amount);
        self.unsettled_since = None;
        self.change(State::Refunded, now);
    }

    /// The gateway has no charge, and will make none.
    pub fn settled_without_charge(&mut self, now: Timestamp) {
        self.unsettled_since = None;
        self.updated_at = now;
    }

    fn change(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.updated_at = now;
    }
}

#[cfg(test)]
mod tests;
