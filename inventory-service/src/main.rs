//! Runs inventory-service until SIGTERM or SIGINT, or sees to its database beside it.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::cli::{self, ServiceCommand};

/// Keeps stock and reserves it for orders.
#[derive(Parser)]
#[command(name = "inventory-service", version)]
struct Cli {
    #[command(flatten)]
    command: ServiceCommand<inventory_service::Config>,
}

fn main() -> ExitCode {
    cli::finish(cli::run(command(Cli::parse().command)))
}

async fn command(command: ServiceCommand<inventory_service::Config>) -> anyhow::Result<u8> {
    match command {
        ServiceCommand::Serve(config) => {
            let telemetry = config.service.telemetry.clone();
            let work = async { inventory_service::bind(config).await?.run_until_signal().await };
            cli::serve("inventory-service", &telemetry, work).await
        }
        ServiceCommand::Audit(args) => cli::audit("inventory-service", &args, inventory_service::audit).await,
        ServiceCommand::Outbox(args) => cli::outbox(&args).await,
    }
}
