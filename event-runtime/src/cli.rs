//! What command lines on top of the runtime share: how they write, how they end, and how they show live events.
//!
//! Data goes to stdout, everything said to a person to stderr. Colour only where a person looks: on a terminal.

mod addresses;
mod audit;
mod database;
mod events;
mod outbox;
mod output;
mod serve;

pub use addresses::{BrokerArgs, KafkaArgs, announce};
pub use audit::{AuditArgs, Export, audit};
pub use database::DatabaseArgs;
pub use events::{ReadArgs, follow};
pub use outbox::{OutboxArgs, outbox};
pub use output::{Format, Output, Paint, finish, one_line, with_causes};
pub use serve::{ServiceCommand, run, serve};

/// Exit codes.
pub mod exit {
    /// It worked.
    pub const OK: u8 = 0;
    /// It did not work.
    pub const FAILURE: u8 = 1;
    /// The command line cannot be understood. clap's own code.
    pub const USAGE: u8 = 2;
    /// It worked, and what was asked for ended badly: the order was cancelled.
    pub const CANCELLED: u8 = 3;
    /// It had not ended when time was up. As `timeout(1)` says it.
    pub const TIMED_OUT: u8 = 124;
}
