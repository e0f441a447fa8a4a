//! order-service over a real database: its HTTP API, its handlers one by one, and the whole service on an embedded
//! broker.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod bench;
mod idempotency;
mod paging;
mod placing;
mod saga;
mod service;
mod spike;
mod starting;
mod whole;
