//! `cargo run`: the whole order system in one process.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::cli;
use local_stack::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    cli::finish(run(Arguments::parse()).await)
}
