//! What payment-service does about which event.

mod order_cancelled;
mod order_created;

use std::time::Duration;

use event_runtime::{Clock, ConsumerBuilder, Database};
use shared_events::topics;

use crate::gateway::Gateway;

pub use order_cancelled::{RefundOrder, Undo, Undone};
pub use order_created::{Answer, ChargeOrder, Plan};

/// What a handler takes beyond the gateway's time.
const DATABASE_TIME: Duration = Duration::from_secs(4);

/// After this an attempt is given up, and asks the gateway nothing more.
fn longest_attempt(gateway: &Gateway) -> Duration {
    gateway.longest_wait() + DATABASE_TIME
}

/// The consumer with every handler.
pub fn consumer(database: &Database, gateway: &Gateway, clock: &Clock, settles_after: Duration) -> ConsumerBuilder {
    ConsumerBuilder::new(topics::PAYMENT_SERVICE.name)
        .handler_timeout(longest_attempt(gateway))
        .effect(database, ChargeOrder::new(gateway.clone(), clock.clone()))
        .effect(database, RefundOrder::new(gateway.clone(), clock.clone(), settles_after))
}
