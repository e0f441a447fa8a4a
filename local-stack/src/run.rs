//! `cargo run` from its arguments to its end.

use std::{path::PathBuf, pin::pin, time::Duration};

use clap::{Parser, Subcommand};
use event_runtime::{
    cli::{Format, Output, Paint, exit, serve},
    config::{KafkaConfig, TelemetryConfig},
    shutdown,
    telemetry::{self, LogOptions},
};

use crate::{
    Addresses, Folder, Stack, StackOptions,
    chaos::{self, Chaos, Faults},
    guide,
    idempotency_demo::{self, DemoArgs},
    samples,
    stack::PAYMENT_PROCESS,
};

/// How long the stack may take to end: its services have 20 s.
const LONGEST_END: Duration = Duration::from_secs(30);
/// How long a sample order may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// With what is repeated until it gets through.
const PATIENCE_WITH_CHAOS: Duration = Duration::from_secs(120);

/// Runs the whole order system in this process: embedded Kafka broker, SQLite, payment gateway fake, all services.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// End once the sample orders have ended: 0 if all went as they should, else 1
    #[arg(long)]
    exit: bool,

    /// Where order-service listens; 0 takes a free port
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    order_port: u16,

    /// Where databases, mails and the address file are kept; emptied at every start
    #[arg(long, default_value = ".local-stack", value_name = "FOLDER")]
    dir: PathBuf,

    /// Break things on purpose, such as duplicates,gateway-failures=0.3 (--help has the list)
    #[arg(long, value_name = "FAULT[=VALUE],…", long_help = chaos::HELP)]
    chaos: Option<Faults>,

    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// What needs no stack.
#[derive(Subcommand)]
enum Command {
    #[command(long_flag = "idempotency-demo")]
    IdempotencyDemo(DemoArgs),
    /// payment-service in this program, for `--chaos crash` to kill
    #[command(name = PAYMENT_PROCESS, hide = true)]
    PaymentService(Box<payment_service::Config>),
}

/// Runs what the command line asks for, to its exit code.
///
/// # Errors
/// When something does not start, ends by itself, or a sample order does not end as it should.
pub async fn run(arguments: Arguments) -> anyhow::Result<u8> {
    match arguments.command {
        Some(Command::IdempotencyDemo(args)) => idempotency_demo::run(&args).await,
        Some(Command::PaymentService(config)) => {
            let telemetry = config.service.telemetry.clone();
            let work = async { payment_service::bind(*config).await?.run_until_signal().await };
            serve("payment-service", &telemetry, work).await
        }
        None => run_stack(arguments).await.map(|()| exit::OK),
    }
}

/// Runs the stack until it is told to end, or with `--exit` until the sample orders have ended.
async fn run_stack(arguments: Arguments) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&LogOptions::new("local-stack", &arguments.telemetry).stderr())?;
    let folder = Folder::claim(&arguments.dir)?;
    guide::print(&guide::opening())?;
    // Listened for from the first moment on, so that ctrl-c stops in good order at any time.
    let mut signal = pin!(shutdown::signal(LONGEST_END));
    let crashes = arguments.chaos.iter().any(Faults::crash);
    let payment_process = crashes.then(std::env::current_exe).transpose()?;
    let options = StackOptions { order_port: arguments.order_port, payment_process, ..StackOptions::default() };
    let mut stack = tokio::select! {
        stack = Stack::start(&folder, &options) => stack?,
        () = &mut signal => return Ok(()),
    };
    let chaos = match &arguments.chaos {
        Some(faults) => Some(begin(faults, &stack).await?),
        None => None,
    };
    let playing = Playing {
        addresses: stack.addresses().clone(),
        kafka: stack.broker().config(),
        folder: &folder,
        chaos: chaos.as_ref(),
        exit: arguments.exit,
    };
    let shown = tokio::select! {
        shown = playing.show() => shown,
        () = &mut signal => Ok(()),
        error = stack.failed() => Err(error),
    };
    // Before the services: they want to say goodbye to brokers that answer.
    let mended = match chaos {
        Some(chaos) => chaos.stop().await,
        None => Ok(()),
    };
    let stopped = stack.stop().await;
    telemetry.shutdown().await;
    shown.and(mended).and(stopped)
}

/// Begins with chaos, and says so.
async fn begin(faults: &Faults, stack: &Stack) -> anyhow::Result<Chaos> {
    let output = Output::new(Format::Table);
    output.note_painted(Some(Paint::Bad), "\nCHAOS: this stack is broken on purpose. For tests and demos only");
    for fault in &faults.0 {
        output.note_painted(Some(Paint::Bad), format_args!("  {:<17} {fault}", fault.name()));
    }
    Chaos::begin(faults, stack).await
}

/// What is shown of a stack that runs.
struct Playing<'a> {
    addresses: Addresses,
    kafka: KafkaConfig,
    folder: &'a Folder,
    chaos: Option<&'a Chaos>,
    exit: bool,
}

impl Playing<'_> {
    /// The sample orders, and what chaos did to them; then what to type next, for as long as the stack is to stay.
    async fn show(&self) -> anyhow::Result<()> {
        let patience = if self.chaos.is_some() { PATIENCE_WITH_CHAOS } else { PATIENCE };
        for sample in samples::SAMPLES {
            let order = samples::play(self.addresses.url("order-service"), sample, patience).await?;
            guide::print(&guide::order(sample, &order))?;
        }
        if let Some(chaos) = self.chaos {
            if chaos.faults().crash() {
                let order = chaos.crash(&self.addresses, patience).await?;
                guide::print(&guide::order(&chaos::KILLED, &order))?;
            }
            guide::print(&chaos.report(&self.addresses, &self.kafka).await?)?;
        }
        if self.exit {
            return Ok(guide::print(&guide::closing(self.folder))?);
        }
        guide::print(&guide::next_steps(&self.addresses, self.folder))?;
        std::future::pending().await
    }
}
