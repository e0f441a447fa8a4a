//! The handlers against a real gateway over HTTP and a database, and the service as a whole on an embedded broker.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends, in its support code too")]

mod charging;
mod expiry;
mod gateway_answers;
mod refunding;
mod service;
mod support;
mod unanswered;
