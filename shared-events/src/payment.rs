//! Events on the topic `payments`: what payment-service says.

use serde::{Deserialize, Serialize};

use crate::{Event, Money, OrderId, PaymentId, Topic, topics};

/// The order was charged, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentSucceeded {
    /// The order.
    pub order_id: OrderId,
    /// The charge.
    pub payment_id: PaymentId,
    /// What was charged.
    pub amount: Money,
}

impl Event for PaymentSucceeded {
    const TYPE: &'static str = "payment.succeeded";
    const TOPIC: Topic = topics::PAYMENTS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// The order was not charged and will not be: the gateway confirmed that no charge exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentFailed {
    /// The order.
    pub order_id: OrderId,
    /// Why, in words a customer can read.
    pub reason: String,
}

impl Event for PaymentFailed {
    const TYPE: &'static str = "payment.failed";
    const TOPIC: Topic = topics::PAYMENTS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// A charge was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// The charge that was given back.
    pub payment_id: PaymentId,
    /// How much of it: all.
    pub amount: Money,
}

impl Event for PaymentRefunded {
    const TYPE: &'static str = "payment.refunded";
    const TOPIC: Topic = topics::PAYMENTS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}
