//! An idempotent producer that waits for the broker's acknowledgement.

/// Writes records and waits until they are acknowledged by all in-sync replicas.
#[derive(Clone)]
pub struct Producer {}
