//! One binary for all integration tests of the crate.
//!
//! Those of storage and publishing run on SQLite and the embedded broker; on PostgreSQL where TEST_DATABASE_URL is set,
//! and on a real Kafka where TEST_KAFKA_BROKERS is. Those of the consumer then start a real Kafka each.
#![expect(clippy::unwrap_used, reason = "a test has no better answer to an error than to fail")]

mod consumer;
mod forgetful;
mod inbox;
mod migrations;
mod outbox;
mod outbox_faults;
mod outbox_hangs;
mod outbox_load;
mod outbox_sharing;
mod producer;
mod service;
mod signals;
mod simulation;
mod stage;
mod telemetry;
mod topics;
