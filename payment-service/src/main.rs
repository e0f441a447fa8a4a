//! Runs payment-service until SIGTERM or SIGINT.

use clap::Parser;
use event_runtime::{
    shutdown,
    telemetry::{self, LogOptions},
};

/// Charges and refunds orders at a payment gateway.
#[derive(Parser)]
#[command(name = "payment-service", version)]
struct Cli {
    #[command(flatten)]
    config: payment_service::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { config } = Cli::parse();
    let telemetry = telemetry::init(&LogOptions::new("payment-service", &config.service.telemetry))?;
    let ended = run(config).await;
    telemetry.shutdown().await;
    ended
}

async fn run(config: payment_service::Config) -> anyhow::Result<()> {
    payment_service::bind(config).await?.run(shutdown::signal()).await
}
