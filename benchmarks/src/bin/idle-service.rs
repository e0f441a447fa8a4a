//! A service without work, which the workload `start` measures.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{cli::finish, config::ServiceConfig};

/// Waits for events that never come
#[derive(Parser)]
#[command(name = "idle-service", version)]
struct Cli {
    #[command(flatten)]
    service: ServiceConfig,
}

#[tokio::main]
async fn main() -> ExitCode {
    finish(benchmarks::start::serve_idle(Cli::parse().service).await)
}
