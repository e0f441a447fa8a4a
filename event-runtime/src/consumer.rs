//! The consumer: a poll thread that owns the Kafka client, a dispatcher that owns the pure scheduler, and one task a
//! running attempt.

use crate::{Database, EffectHandler, PlainHandler, TransactionalHandler};

/// Collects the handlers of one consumer group. The topics follow from the handlers' events.
pub struct ConsumerBuilder {
    _group: &'static str,
}

/// A running consumer.
pub struct Consumer {}

/// What a consumer runs with.
pub struct ConsumerContext {
    /// How to reach Kafka.
    pub kafka: crate::config::KafkaConfig,
    /// Writes dead letters.
    pub producer: crate::producer::Producer,
    /// Where the time comes from.
    pub clock: crate::Clock,
}

impl ConsumerBuilder {
    /// A consumer in `group`. The group name is also the service name its handlers publish under.
    pub fn new(group: &'static str) -> ConsumerBuilder {
        ConsumerBuilder { _group: group }
    }

    /// Handles `H::Event` in a transaction of `database`.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn transactional<H: TransactionalHandler>(self, database: &Database, handler: H) -> Self {
        let _ = (database, handler);
        self
    }

    /// Handles `H::Event` with an effect outside `database`.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn effect<H: EffectHandler>(self, database: &Database, handler: H) -> Self {
        let _ = (database, handler);
        self
    }

    /// Handles `H::Event` without a database.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn plain<H: PlainHandler>(self, handler: H) -> Self {
        let _ = handler;
        self
    }
}
