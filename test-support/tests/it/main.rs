//! The tools the other tests stand on.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod mock_kafka;
mod smtp;
