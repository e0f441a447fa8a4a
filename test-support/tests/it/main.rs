//! The tools the other tests stand on.

mod mock_kafka;
mod smtp;
