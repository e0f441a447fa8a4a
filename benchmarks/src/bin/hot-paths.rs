//! The paths that `scripts/instructions.sh` counts the instructions of.

use std::process::ExitCode;

use benchmarks::hot_paths;
use clap::Parser;
use event_runtime::cli::{Format, Output, exit, finish};

fn main() -> ExitCode {
    let lines = hot_paths::run(&hot_paths::Cli::parse());
    let output = Output::new(Format::Table);
    finish(lines.iter().try_for_each(|line| output.line(line)).map(|()| exit::OK).map_err(Into::into))
}
