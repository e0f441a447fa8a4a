//! The order system from outside: real processes, a broker and databases, driven over HTTP and Kafka alone.
//!
//! The tests run on librdkafka's mock cluster and SQLite, or, when `TEST_DATABASE_URL` names a PostgreSQL server, on it
//! and on a real Apache Kafka that each test starts for itself with `scripts/kafka.sh` (topic names are fixed, so tests
//! cannot share a broker).

mod audit;
mod orders;
mod postgres;
mod process;
mod servers;
pub mod service;
mod stack;

pub use orders::{Order, OrderRequest};
pub use postgres::OwnPostgres;
pub use process::Process;
pub use servers::Servers;

pub use stack::{GatewayAway, Stack, StackBuilder, StockLevel};
