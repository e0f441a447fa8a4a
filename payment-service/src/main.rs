//! Runs payment-service until SIGTERM or SIGINT, or sees to its database beside it.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::cli::{self, ServiceCommand};

/// Charges and refunds orders at a payment gateway.
#[derive(Parser)]
#[command(name = "payment-service", version)]
struct Cli {
    #[command(flatten)]
    command: ServiceCommand<payment_service::Config>,
}

fn main() -> ExitCode {
    cli::finish(cli::run(command(Cli::parse().command)))
}

async fn command(command: ServiceCommand<payment_service::Config>) -> anyhow::Result<u8> {
    match command {
        ServiceCommand::Serve(config) => {
            let telemetry = config.service.telemetry.clone();
            let work = async { payment_service::bind(config).await?.run_until_signal().await };
            cli::serve("payment-service", &telemetry, work).await
        }
        ServiceCommand::Audit(args) => cli::audit("payment-service", &args, payment_service::audit).await,
        ServiceCommand::Outbox(args) => cli::outbox(&args).await,
    }
}
