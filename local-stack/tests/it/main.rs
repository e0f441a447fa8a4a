//! The stack, whole.

#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod chaos;
mod command_lines;
mod idempotency_demo;
mod memory;
mod operations;
mod stack;
