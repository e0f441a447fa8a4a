//! What payment-service does about which event.

mod order_cancelled;
mod order_created;

use std::time::Duration;

use event_runtime::{Clock, ConsumerBuilder, Database, Delivery};
use shared_events::topics;
use tokio::time::Instant;

use crate::gateway::Gateway;

pub use order_cancelled::{RefundOrder, Undo, Undone};
pub use order_created::{Answer, ChargeOrder, Plan};

/// What a handler takes beyond the gateway's time.
const DATABASE_TIME: Duration = Duration::from_secs(4);

/// After this an attempt is given up, and asks the gateway nothing more.
fn longest_attempt(gateway: &Gateway) -> Duration {
    gateway.longest_wait() + DATABASE_TIME
}

/// Until when an attempt asks the gateway: what follows has half of the database's time, and the gateway's silence is said
/// before the attempt is cut off.
fn asks_until<E>(delivery: &Delivery<E>) -> Instant {
    delivery.deadline - DATABASE_TIME / 2
}

/// The consumer with every handler.
pub fn consumer(database: &Database, gateway: &Gateway, clock: &Clock, settles_after: Duration) -> ConsumerBuilder {
    ConsumerBuilder::new(topics::PAYMENT_SERVICE.name)
        .handler_timeout(longest_attempt(gateway))
        .effect(database, ChargeOrder::new(gateway.clone(), clock.clone()))
        .effect(database, RefundOrder::new(gateway.clone(), clock.clone(), settles_after))
}
