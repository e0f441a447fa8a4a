//! The stack, whole.

#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod chaos;
mod idempotency_demo;
mod memory;
mod operations;
mod stack;
