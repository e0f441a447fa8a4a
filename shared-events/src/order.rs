//! Events on the topic `orders` and `order-deadlines`: what order-service says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Event, Money, OrderId, PaymentId, Topic, UserId, topics};

/// How the services talk about one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Every service reacts to events; nobody directs.
    #[default]
    Choreography,
    /// A pattern this version does not know; nobody but its publisher acts on it.
    #[serde(other)]
    Unknown,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// What, such as `COFFEE-1KG`.
    pub sku: String,
    /// How many, at least 1.
    pub quantity: u32,
    /// The catalogue's price of one, at the time of the order.
    pub unit_price: Money,
}

/// An order was accepted; payment and stock are still open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered, where they are registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Where mail about the order goes.
    pub customer_email: String,
    /// What was ordered; never empty.
    pub items: Vec<OrderItem>,
    /// The sum of all items.
    pub total: Money,
    /// What the payment provider charges: a token, never a card number.
    pub payment_token: String,
    /// How the services talk about this order.
    #[serde(default)]
    pub pattern: Pattern,
    /// After this moment nobody charges or reserves for the order any more.
    pub expires_at: Timestamp,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
    const TOPIC: Topic = topics::ORDERS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// An order is paid and its stock reserved: it ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCompleted {
    /// The order.
    pub order_id: OrderId,
    /// Where the confirmation goes.
    pub customer_email: String,
    /// What was sold.
    pub items: Vec<OrderItem>,
    /// What was charged.
    pub total: Money,
    /// The charge.
    pub payment_id: PaymentId,
}

impl Event for OrderCompleted {
    const TYPE: &'static str = "order.completed";
    const TOPIC: Topic = topics::ORDERS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// An order ended without a sale. Whoever had done something for it undoes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Where the notice goes.
    pub customer_email: String,
    /// What had been ordered.
    pub items: Vec<OrderItem>,
    /// What it would have cost.
    pub total: Money,
    /// Why, in words a customer can read.
    pub reason: String,
}

impl Event for OrderCancelled {
    const TYPE: &'static str = "order.cancelled";
    const TOPIC: Topic = topics::ORDERS;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

/// An order's time is up: if it is still open, order-service cancels it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderDeadlineReached {
    /// The order.
    pub order_id: OrderId,
}

impl Event for OrderDeadlineReached {
    const TYPE: &'static str = "order.deadline-reached";
    const TOPIC: Topic = topics::ORDER_DEADLINES;

    fn key(&self) -> String {
        self.order_id.to_string()
    }
}
