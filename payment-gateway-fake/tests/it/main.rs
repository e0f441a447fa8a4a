//! The gateway over real HTTP, as its callers see it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends, in its support code too")]

mod charges;
mod faults;
mod ledger;
mod support;
