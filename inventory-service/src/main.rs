//! Runs inventory-service until SIGTERM or SIGINT.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{
    cli, shutdown,
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
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    // Never a backtrace, even where RUST_BACKTRACE asks for one: what fails here is a setting or a server.
    cli::finish(run(config).await.map(|()| cli::exit::OK))
}

async fn run(config: inventory_service::Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&LogOptions::new("inventory-service", &config.service.telemetry))?;
    let ended = serve(config).await;
    telemetry.shutdown().await;
    ended
}

async fn serve(config: inventory_service::Config) -> anyhow::Result<()> {
    inventory_service::bind(config).await?.run(shutdown::signal()).await
}
