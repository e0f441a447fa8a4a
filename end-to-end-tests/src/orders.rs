//! Orders over order-service's HTTP interface.

use serde::Deserialize;
use serde_json::{Value, json};

/// What to order.
#[derive(Clone, Debug)]
pub struct OrderRequest {
    /// Sku and quantity.
    pub items: Vec<(&'static str, u32)>,
    /// Payment token.
    pub token: &'static str,
    /// Customer's mail address.
    pub customer: String,
}

impl OrderRequest {
    /// One of `sku`, paid with a card that works.
    pub fn of(sku: &'static str) -> OrderRequest {
        OrderRequest { items: vec![(sku, 1)], token: "tok_visa", customer: "ada@example.com".to_owned() }
    }

    /// The same, paid with `token`.
    pub fn paid_with(self, token: &'static str) -> OrderRequest {
        OrderRequest { token, ..self }
    }

    /// The same, in this quantity.
    pub fn times(mut self, quantity: u32) -> OrderRequest {
        for item in &mut self.items {
            item.1 = quantity;
        }
        self
    }

    /// As the request body.
    pub fn body(&self) -> Value {
        let items: Vec<_> =
            self.items.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
        json!({ "customer": self.customer, "items": items, "paymentToken": self.token })
    }
}

/// An order as order-service shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub order_id: String,
    /// `pending`, `completed` or `cancelled`.
    pub state: String,
    /// Why it was cancelled.
    #[serde(default)]
    pub reason: Option<String>,
    /// What happened, in order.
    #[serde(default)]
    pub timeline: Vec<Entry>,
}

/// One line of a timeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    pub time: String,
    /// What.
    pub event: String,
    /// At which attempt.
    #[serde(default)]
    pub attempt: Option<u32>,
}

impl Order {
    /// Whether it reached its end.
    pub fn has_ended(&self) -> bool {
        self.state != "pending"
    }

    /// How often `event` stands in the timeline.
    pub fn count(&self, event: &str) -> usize {
        self.timeline.iter().filter(|entry| entry.event == event).count()
    }

    /// Whether everything it set in motion is done: its mail is sent, stock sold or released, money kept or refunded.
    pub fn is_at_rest(&self) -> bool {
        let has = |event| self.count(event) > 0;
        let stock = !has("stock.reserved") || has("stock.committed") || has("stock.released");
        let money = !has("payment.succeeded") || has("order.completed") || has("payment.refunded");
        self.has_ended() && has("mail.sent") && stock && money
    }
}
