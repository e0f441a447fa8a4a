//! What is known about an order, from whom.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared_events::OrderId;

use crate::lag::Lag;

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    pub order_id: OrderId,
    /// What order-service says of the order.
    pub order: Answer<OrderState>,
    /// Every service, in the order in which an order passes them.
    pub services: Vec<ServiceEvidence>,
    /// Where the payment gateway should be, as seen from here.
    pub payment_gateway: String,
    /// What Kafka holds.
    pub kafka: Answer<KafkaEvidence>,
}

/// An answer, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer<T> {
    /// Asked and told.
    Known(T),
    /// Asked, and told that there is no such order.
    NotFound,
    /// Asked, and not told.
    Silent(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderState {
    pub state: String,
    pub reason: Option<String>,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEvidence {
    pub service: String,
    pub address: String,
    pub address_source: String,
    /// Whether it runs inside `cargo run`: then there is no container to ask.
    pub embedded: bool,
    pub inspection: Answer<Inspection>,
}

/// What a service answers to `/inspect/{key}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    #[serde(default)]
    pub in_flight: Vec<InFlight>,
    #[serde(default)]
    pub outbox: Outbox,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    pub event: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub attempt: u32,
    /// running, waiting, queued or paused.
    pub state: String,
    pub last_error: Option<String>,
    pub next_retry_at: Option<Timestamp>,
}

/// A service's whole outbox, not only the order's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbox {
    #[serde(default)]
    pub rows: i64,
    pub oldest_age_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaEvidence {
    /// The order's events, in the order of time.
    pub events: Vec<SeenEvent>,
    pub dead_letters: Vec<SeenDeadLetter>,
    /// Where the groups stand in the partitions that hold the order's events.
    pub lag: Vec<Lag>,
    /// Whether all of the topics was read in time.
    pub complete: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenEvent {
    pub time: Option<Timestamp>,
    pub event: String,
    pub source: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenDeadLetter {
    pub time: Option<Timestamp>,
    pub group: String,
    pub event: String,
    /// The dead-letter topic.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub attempts: u32,
    pub error: String,
    /// Whether somebody has put its record back since.
    pub replayed: bool,
}

impl InFlight {
    /// Whether it waits, with others, for something away: one of them is tried at a time until it is back.
    pub fn is_probing(&self) -> bool {
        self.state == "paused"
    }
}

impl Evidence {
    pub fn service(&self, name: &str) -> Option<&ServiceEvidence> {
        self.services.iter().find(|service| service.service == name)
    }

    pub fn kafka(&self) -> Option<&KafkaEvidence> {
        match &self.kafka {
            Answer::Known(kafka) => Some(kafka),
            Answer::NotFound | Answer::Silent(_) => None,
        }
    }
}

impl KafkaEvidence {
    pub fn has(&self, events: &[&str]) -> bool {
        self.events.iter().any(|seen| events.contains(&seen.event.as_str()))
    }
}
