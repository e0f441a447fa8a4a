//! Runs the fake payment gateway until SIGTERM or SIGINT.

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A fake payment gateway: test tokens, idempotency keys, a durable ledger, faults on demand. No money moves.
#[derive(Parser)]
#[command(name = "payment-gateway-fake", version)]
struct Cli {
    #[command(flatten)]
    config: payment_gateway_fake::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let gateway = payment_gateway_fake::bind(cli.config).await?;
    gateway
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
}
