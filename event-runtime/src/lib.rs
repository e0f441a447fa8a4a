//! Event-driven services on Kafka: consumers that keep order per key, retry without blocking other keys, dead-letter,
//! deduplicate and hand over cleanly; a transactional outbox and inbox; and the shell a service runs in.
//!
//! A record flows one way: record → handler → transaction → outbox → relay → topic. A handler says what to do with one
//! event ([`TransactionalHandler`], [`EffectHandler`], [`PlainHandler`]) or with those that are ready together
//! ([`BatchHandler`]); a [`Service`] runs handlers, relay and HTTP until it is told to stop.
#![warn(missing_docs)]

mod assignments;
pub mod cli;
mod clock;
pub mod config;
pub mod consumer;
mod context;
pub mod database;
mod delivery;
pub mod embedded;
mod error;
mod events;
mod handler;
pub mod http;
pub mod inbox;
pub mod outbox;
pub mod producer;
pub mod reader;
pub mod retry;
pub mod scheduler;
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod topics;

/// For what is looked up several times a record: its hash is quick, and seeded.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::quality::RandomState>;

pub use clock::Clock;
pub use consumer::{Consumer, ConsumerBuilder, ConsumerContext};
pub use database::{Database, Migration, Tx};
pub use delivery::{Delivery, HeaderName, Origin, Record};
pub use error::HandlerError;
#[doc(hidden)]
pub use events::macros;
pub use events::{EventType, Events};
pub use handler::{BatchHandler, EffectHandler, PlainHandler, Prepared, RawHandler, TransactionalHandler};
pub use outbox::Outbox;
pub use retry::RetryPolicy;
pub use service::Service;
