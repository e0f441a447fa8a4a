//! What the tests of several crates share: an embedded broker, a mail server that keeps what it is sent, databases in
//! temporary folders, waiting on a condition, and fuzzing.
//!
//! Everything here panics when it cannot do its work: a test has no better answer to that.
#![warn(missing_docs)]

mod eventually;
pub mod fuzz;
pub mod handling;
pub mod mock_kafka;
mod real_kafka;
pub mod records;
mod running;
pub mod smtp;
mod temp_database;

pub use eventually::eventually;
pub use mock_kafka::MockKafka;
pub use real_kafka::RealKafka;
pub use running::RunningService;
pub use smtp::SmtpSink;
pub use temp_database::TempDatabase;
