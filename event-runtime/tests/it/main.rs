//! One binary for all integration tests of the crate.
mod consumer;
mod outbox;
