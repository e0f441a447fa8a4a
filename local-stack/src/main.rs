//! `cargo run`: the whole order system in one process.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use event_runtime::{
    cli::{self, exit},
    config::TelemetryConfig,
    shutdown,
    telemetry::{self, LogOptions},
};
use local_stack::{Folder, Stack, StackOptions, guide, samples};

/// Runs the whole order system in this process: embedded Kafka broker, SQLite, payment gateway fake, all services.
#[derive(Parser)]
#[command(version)]
struct Arguments {
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

#[tokio::main]
async fn main() -> ExitCode {
    cli::finish(run(Arguments::parse()).await.map(|()| exit::OK))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&LogOptions::new("local-stack", &arguments.telemetry).stderr())?;
    let folder = Folder::claim(&arguments.dir)?;
    guide::print(&guide::opening())?;
    let mut stack = Stack::start(&folder, &StackOptions { order_port: arguments.order_port, brokers: 3 }).await?;
    for sample in samples::SAMPLES {
        let order = samples::play(stack.addresses().url("order-service"), sample, Duration::from_secs(20)).await?;
        guide::print(&guide::order(sample, &order))?;
    }
    if !arguments.exit {
        guide::print(&guide::next_steps(stack.addresses(), &folder))?;
        tokio::select! {
            () = shutdown::signal() => {}
            error = stack.failed() => return Err(error),
        }
    }
    stack.stop().await?;
    telemetry.shutdown().await;
    Ok(())
}
