//! `cargo run` from its arguments to its end.

use std::{path::PathBuf, pin::pin, time::Duration};

use clap::Parser;
use event_runtime::{
    config::TelemetryConfig,
    shutdown,
    telemetry::{self, LogOptions},
};

use crate::{Addresses, Folder, Stack, StackOptions, guide, samples};

/// Runs the whole order system in this process: embedded Kafka broker, SQLite, payment gateway fake, all services.
#[derive(Parser)]
#[command(version)]
pub struct Arguments {
    /// End once the sample orders have ended: 0 if all went as they should, else 1
    #[arg(long)]
    exit: bool,

    /// Where order-service listens; 0 takes a free port
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    order_port: u16,

    /// Where databases, mails and the address file are kept; emptied at every start
    #[arg(long, default_value = ".local-stack", value_name = "FOLDER")]
    dir: PathBuf,

    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// Runs the stack until it is told to end, or with `--exit` until the sample orders have ended.
///
/// # Errors
/// When something does not start, ends by itself, or a sample order does not end as it should.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&LogOptions::new("local-stack", &arguments.telemetry).stderr())?;
    let folder = Folder::claim(&arguments.dir)?;
    guide::print(&guide::opening())?;
    // Listened for from the first moment on, so that ctrl-c stops in good order at any time.
    let mut signal = pin!(shutdown::signal());
    let options = StackOptions { order_port: arguments.order_port, brokers: 3 };
    let mut stack = tokio::select! {
        stack = Stack::start(&folder, &options) => stack?,
        () = &mut signal => return Ok(()),
    };
    let addresses = stack.addresses().clone();
    let shown = tokio::select! {
        shown = show(&addresses, &folder, arguments.exit) => shown,
        () = &mut signal => Ok(()),
        error = stack.failed() => Err(error),
    };
    let stopped = stack.stop().await;
    telemetry.shutdown().await;
    shown.and(stopped)
}

/// The sample orders; then what to type next, for as long as the stack is to stay.
async fn show(addresses: &Addresses, folder: &Folder, exit: bool) -> anyhow::Result<()> {
    for sample in samples::SAMPLES {
        let order = samples::play(addresses.url("order-service"), sample, Duration::from_secs(20)).await?;
        guide::print(&guide::order(sample, &order))?;
    }
    if !exit {
        guide::print(&guide::next_steps(addresses, folder))?;
        std::future::pending::<()>().await;
    }
    Ok(())
}
