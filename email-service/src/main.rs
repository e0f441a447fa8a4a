//! Runs email-service until SIGTERM or SIGINT.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::{
    cli, shutdown,
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
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    // Never a backtrace, even where RUST_BACKTRACE asks for one: what fails here is a setting or a server.
    cli::finish(run(config).await.map(|()| cli::exit::OK))
}

async fn run(config: email_service::Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&LogOptions::new("email-service", &config.service.telemetry))?;
    let ended = serve(config).await;
    telemetry.shutdown().await;
    ended
}

async fn serve(config: email_service::Config) -> anyhow::Result<()> {
    email_service::bind(config).await?.run(shutdown::signal()).await
}
