//! Runs inventory-service until SIGTERM or SIGINT.

use clap::Parser;
use event_runtime::{
    shutdown,
    telemetry::{self, LogOptions},
};

/// Keeps stock and reserves it for orders.
#[derive(Parser)]
#[command(name = "inventory-service", version)]
struct Cli {
    #[command(flatten)]
    config: inventory_service::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { config } = Cli::parse();
    let telemetry = telemetry::init(&LogOptions::new("inventory-service", &config.service.telemetry))?;
    let outcome = run(config).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(config: inventory_service::Config) -> anyhow::Result<()> {
    inventory_service::bind(config).await?.run(shutdown::signal()).await
}
