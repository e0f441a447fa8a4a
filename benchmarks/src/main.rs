//! The binary: takes the command line apart, runs workloads, ends with an exit code.

use std::process::ExitCode;

use benchmarks::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
