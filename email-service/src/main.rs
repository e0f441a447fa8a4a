//! Runs email-service until SIGTERM or SIGINT, or sees to its database beside it.

use std::process::ExitCode;

use clap::Parser;
use event_runtime::cli::{self, ServiceCommand};

/// Tells customers by mail how their order ended.
#[derive(Parser)]
#[command(name = "email-service", version)]
struct Cli {
    #[command(flatten)]
    command: ServiceCommand<email_service::Config>,
}

fn main() -> ExitCode {
    cli::finish(cli::run(command(Cli::parse().command)))
}

async fn command(command: ServiceCommand<email_service::Config>) -> anyhow::Result<u8> {
    match command {
        ServiceCommand::Serve(config) => {
            let telemetry = config.service.telemetry.clone();
            let work = async { email_service::bind(config).await?.run_until_signal().await };
            cli::serve("email-service", &telemetry, work).await
        }
        ServiceCommand::Audit(args) => cli::audit("email-service", &args, email_service::audit).await,
        ServiceCommand::Outbox(args) => cli::outbox(&args).await,
    }
}
