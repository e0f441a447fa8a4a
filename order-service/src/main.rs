//! The binary: takes the command line apart, runs the command, ends with its exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    order_service::cli::run(order_service::cli::Cli::parse())
}
