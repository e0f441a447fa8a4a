//! Every topic and every consumer group, declared once: services and `eventctl topics apply` create them from here.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A topic as it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The name on the broker.
    pub name: &'static str,
    /// How many partitions it is created with.
    pub partitions: i32,
    /// How long records are kept. Consumers remember handled event ids for longer than this.
    pub retention: Duration,
}

impl Topic {
    const fn new(name: &'static str) -> Topic {
        Topic { name, partitions: 6, retention: Duration::from_secs(7 * DAY.as_secs()) }
    }
}

/// `order.created`, `order.completed`, `order.cancelled`; keyed by order id.
pub const ORDERS: Topic = Topic::new("orders");
/// `payment.succeeded`, `payment.failed`, `payment.refunded`; keyed by order id.
pub const PAYMENTS: Topic = Topic::new("payments");
/// `stock.reserved`, `stock.rejected`, `stock.released`, `stock.committed`; keyed by order id.
pub const INVENTORY: Topic = Topic::new("inventory");
/// `order.deadline-reached`, published when an order's time is up; keyed by order id.
pub const ORDER_DEADLINES: Topic = Topic::new("order-deadlines");
/// `mail.sent`; keyed by order id.
pub const MAILS: Topic = Topic::new("mails");

/// Every topic that carries events.
pub const TOPICS: &[Topic] = &[ORDERS, PAYMENTS, INVENTORY, ORDER_DEADLINES, MAILS];

/// A consumer group: named after its service, with `.purpose` where a service has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group id on the broker.
    pub name: &'static str,
    /// What it subscribes to.
    pub topics: &'static [Topic],
}

/// The saga.
pub const ORDER_SERVICE: Group =
    Group { name: "order-service", topics: &[PAYMENTS, INVENTORY, ORDER_DEADLINES, MAILS] };
/// Charges and refunds.
pub const PAYMENT_SERVICE: Group = Group { name: "payment-service", topics: &[ORDERS] };
/// Reservations.
pub const INVENTORY_SERVICE: Group = Group { name: "inventory-service", topics: &[ORDERS] };
/// Mail to customers.
pub const EMAIL_SERVICE: Group = Group { name: "email-service", topics: &[ORDERS] };

/// Every consumer group whose failures are dead-lettered.
pub const GROUPS: &[Group] = &[ORDER_SERVICE, PAYMENT_SERVICE, INVENTORY_SERVICE, EMAIL_SERVICE];

/// Where `group` puts what it could not handle of `topic`: `<topic>.<group>.dlt`.
pub fn dead_letter_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dlt")
}

/// Where an operator's tool puts the dead letters of `group` that are not to be replayed any more:
/// `<topic>.<group>.quarantine`. One partition: nobody handles them.
pub fn quarantine_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.quarantine")
}

/// order-service's second group: it reads every dead letter, to show it in its order's timeline. What it cannot handle
/// is skipped: a dead letter has no dead letter.
pub const ORDER_TIMELINE_GROUP: &str = "order-service.timeline";

/// The dead-letter topics of every group.
pub fn dead_letter_topics() -> impl Iterator<Item = String> {
    dead_letter_partitions().map(|(name, _)| name)
}

/// Every topic there must be, with its partition count: those that carry events, and each group's dead-letter and
/// quarantine topics.
pub fn all() -> impl Iterator<Item = (String, i32)> {
    let events = TOPICS.iter().map(|topic| (topic.name.to_owned(), topic.partitions));
    let quarantine = |group: &'static Group| group.topics.iter().map(|topic| quarantine_topic(topic.name, group.name));
    let quarantines = GROUPS.iter().flat_map(quarantine).map(|name| (name, 1));
    events.chain(dead_letter_partitions()).chain(quarantines)
}

/// A dead-letter topic has as many partitions as the topic it takes from.
fn dead_letter_partitions() -> impl Iterator<Item = (String, i32)> {
    let of_group = |group: &'static Group| {
        group.topics.iter().map(|topic| (dead_letter_topic(topic.name, group.name), topic.partitions))
    };
    GROUPS.iter().flat_map(of_group)
}
