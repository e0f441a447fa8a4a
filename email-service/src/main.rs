//! Runs email-service until SIGTERM or SIGINT.

use clap::Parser;
use event_runtime::{
    shutdown,
    telemetry::{self, LogOptions},
};

/// Tells customers by mail how their order ended.
#[derive(Parser)]
#[command(name = "email-service", version)]
struct Cli {
    #[command(flatten)]
    config: email_service::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { config } = Cli::parse();
    let telemetry = telemetry::init(&LogOptions::new("email-service", &config.service.telemetry))?;
    let outcome = run(config).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(config: email_service::Config) -> anyhow::Result<()> {
    email_service::bind(config).await?.run(shutdown::signal()).await
}
