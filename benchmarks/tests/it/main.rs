//! The binary, run as a person runs it.

mod smoke;
