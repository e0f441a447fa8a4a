//! Runs payment-service until SIGTERM or SIGINT.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{cli, shutdown};

/// Charges and refunds orders at a payment gateway.
#[derive(Parser)]
#[command(name = "payment-service", version)]
struct Cli {
    #[command(flatten)]
    config: payment_service::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    let telemetry = config.service.telemetry.clone();
    let work = async { payment_service::bind(config).await?.run(shutdown::signal()).await };
    cli::finish(cli::serve("payment-service", &telemetry, work).await)
}
