//! Runs email-service until SIGTERM or SIGINT.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{cli, shutdown};

/// Tells customers by mail how their order ended.
#[derive(Parser)]
#[command(name = "email-service", version)]
struct Cli {
    #[command(flatten)]
    config: email_service::Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    let telemetry = config.service.telemetry.clone();
    let work = async { email_service::bind(config).await?.run(shutdown::signal()).await };
    cli::finish(cli::serve("email-service", &telemetry, work).await)
}
