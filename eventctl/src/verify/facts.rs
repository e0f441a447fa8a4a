//! What the rules are checked against: rows as the services export them, the gateway's ledger, the mail server's mails,
//! and what stands in the topics.

use std::collections::{BTreeMap, HashMap, HashSet};

use event_runtime::Origin;
use jiff::Timestamp;
use serde::Deserialize;
use shared_events::{EventId, Money, OrderId, OrderItem, StockItem};

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the earliest of the exports was made: what happened later may be in some and not in others.
    pub at: Timestamp,
    pub orders: BTreeMap<OrderId, OrderRow>,
    pub payments: HashMap<OrderId, PaymentRow>,
    pub reservations: BTreeMap<OrderId, ReservationRow>,
    pub stock: Vec<StockRow>,
    /// What email-service says it sent.
    pub mail_rows: Vec<MailRow>,
    pub outbox: Vec<OutboxRow>,
    /// What became of an event in a group.
    pub inbox: HashMap<String, HashMap<EventId, InboxRow>>,
    /// The gateway's own ledger.
    pub charges: Vec<Charge>,
    /// What the mail server took.
    pub mails: Vec<Mail>,
    /// Every record of the topics, by partition in the order of offsets.
    pub records: Vec<EventRecord>,
    /// Every record of the dead-letter topics.
    pub letters: Vec<Letter>,
    /// Where each group stands in each partition.
    pub committed: BTreeMap<(String, String, i32), i64>,
    /// Topics that no longer hold their first records.
    pub trimmed: HashSet<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRow {
    pub order_id: OrderId,
    pub state: OrderState,
    pub items: Vec<OrderItem>,
    pub total: Money,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    Pending,
    Completed,
    Cancelled,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRow {
    pub order_id: OrderId,
    pub state: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationRow {
    pub order_id: OrderId,
    pub state: String,
    pub items: Vec<StockItem>,
    pub changed_at: Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
pub struct StockRow {
    pub sku: String,
    pub seeded: i64,
    pub adjustments: i64,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailRow {
    pub order_id: OrderId,
    pub state: String,
    #[serde(default)]
    pub error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRow {
    /// Whose outbox.
    #[serde(skip)]
    pub service: String,
    #[serde(skip)]
    pub table: OutboxTable,
    pub event_id: String,
    pub topic: String,
    pub key: String,
    pub due_at: Timestamp,
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxTable {
    /// Waits to be published.
    #[default]
    Due,
    /// Its time has not come.
    Delayed,
    /// Set aside: it cannot be published.
    Poison,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboxRow {
    pub handled_at: Timestamp,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    Handled,
    Dead,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    pub id: String,
    pub idempotency_key: String,
    pub amount: Money,
    pub status: ChargeStatus,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeStatus {
    Succeeded,
    Refunded,
}

/// One copy of a mail as the mail server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Without its angle brackets.
    pub message_id: String,
    /// The order its subject names.
    pub order: Option<OrderId>,
}

/// A record of a topic, as far as an auditor wants to know it.
#[derive(Clone, Debug)]
pub struct EventRecord {
    pub origin: Origin,
    pub time: Timestamp,
    pub key: Option<OrderId>,
    pub event: EventId,
    pub event_type: String,
}

/// A record of a dead-letter topic.
#[derive(Clone, Debug)]
pub struct Letter {
    pub origin: Origin,
    pub group: String,
    /// Where the record stood that could not be handled.
    pub original: Option<Origin>,
    pub key: Option<OrderId>,
    /// None where the headers are no event's.
    pub event: Option<EventId>,
    /// The class of the failure.
    pub class: String,
}

impl OrderState {
    pub fn name(self) -> &'static str {
        match self {
            OrderState::Pending => "pending",
            OrderState::Completed => "completed",
            OrderState::Cancelled => "cancelled",
        }
    }
}
