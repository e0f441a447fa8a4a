//! The contracts, held to what was published before and to what docs/EVENTS.md says.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod catalogue;
mod document;
mod golden;
mod headers;
