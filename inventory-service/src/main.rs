//! Runs inventory-service until SIGTERM or SIGINT.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{cli, shutdown};

/// Keeps stock and reserves it for orders.
#[derive(Parser)]
#[command(name = "inventory-service", version)]
struct Cli {
    #[command(flatten)]
    config: inventory_service::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    let telemetry = config.service.telemetry.clone();
    let work = async { inventory_service::bind(config).await?.run(shutdown::signal()).await };
    cli::finish(cli::serve("inventory-service", &telemetry, work).await)
}
