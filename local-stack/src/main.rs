//! `cargo run`: the whole order system in one process.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::cli;
use local_stack::{Arguments, run};

fn main() -> ExitCode {
    cli::finish(cli::run(run(Arguments::parse())))
}
