//! What order-service does about events: one handler moves orders on, another notes dead letters.

mod dead_letter;
mod saga;

use event_runtime::{ConsumerBuilder, Database};
use shared_events::topics;

pub use saga::{Advance, News};

/// Transactions, whether of one answer or of a batch. Few, so that they are full when there is much to do: that leaves more
/// of the processor, and connections, to new orders.
const SAGA_CONCURRENCY: usize = 3;

/// Every consumer group of this service.
pub fn consumers(database: &Database) -> Vec<ConsumerBuilder> {
    let saga =
        ConsumerBuilder::new(topics::ORDER_SERVICE.name).concurrency(SAGA_CONCURRENCY).batched(database, Advance);
    vec![saga, dead_letter::consumer(database)]
}
