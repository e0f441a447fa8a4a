//! The stack, whole.

#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod chaos;
mod operations;
mod stack;
