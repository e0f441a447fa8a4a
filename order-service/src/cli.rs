//! The command line: `serve` runs the service, everything else asks a running one, or Kafka.

mod api;
mod follow;
mod item;
mod list;
mod orders_file;
mod place;
mod place_file;
mod status;
mod timeline;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use event_runtime::{
    cli::{AuditArgs, OutboxArgs, Output, audit, exit, finish, outbox},
    config::discovery::{Discovery, ORDER_SERVICE},
};
use shared_events::OrderId;

use self::api::Api;
use crate::Config;

/// Takes orders, and places and follows them from the command line.
///
/// Where order-service and Kafka are comes from flags, else the environment (ORDER_SERVICE_URL, KAFKA_BROKERS), else
/// the .local-stack/env of a running `cargo run`, else the ports of the compose stack.
#[derive(Debug, Parser)]
#[command(name = "order-service", version, max_term_width = 120)]
#[command(after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 the order was cancelled, 124 no end in time")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(Box<Config>),
    /// Place an order and follow it to its end, or place a file of orders
    Place(place::PlaceArgs),
    /// Show where an order stands, and its timeline
    Status(status::StatusArgs),
    /// List orders, the newest first
    List(list::ListArgs),
    /// Show the events of all services as they happen
    ///
    /// Lines come as they are read: those of one order and topic in their order, those of different topics perhaps out
    /// of the order of their times.
    Watch(watch::WatchArgs),
    /// Export what the service's database says, one JSON object a line, for `eventctl verify`
    Audit(AuditArgs),
    /// List the events that could not be published, and put them back
    Outbox(OutboxArgs),
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Which order-service is asked.
#[derive(Debug, clap::Args)]
struct ServiceArgs {
    /// Where order-service listens
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    finish(match cli.command {
        Command::Serve(config) => serve(*config),
        Command::Place(args) => block_on(place::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::List(args) => block_on(list::run(args)),
        Command::Watch(args) => watch::run(&args),
        Command::Audit(args) => block_on(audit("order-service", &args, crate::audit)),
        Command::Outbox(args) => block_on(outbox(&args)),
        Command::Completions { shell } => completions(shell),
    })
}

fn serve(config: Config) -> anyhow::Result<u8> {
    let telemetry = config.service.telemetry.clone();
    let work = async { crate::bind(config).await?.run_until_signal().await };
    event_runtime::cli::run(event_runtime::cli::serve("order-service", &telemetry, work))
}

fn block_on(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    // Into memory first: the generator panics when stdout is a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "order-service", &mut script);
    Output::new(Default::default()).line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(exit::OK)
}

impl ServiceArgs {
    /// The API at the address that is found, which stderr is told.
    fn api(&self, output: &Output) -> anyhow::Result<Api> {
        let discovery = Discovery::from_process();
        Api::new(event_runtime::cli::announce(output, &discovery, "order-service", self.url.as_deref(), ORDER_SERVICE))
    }
}

/// Parses an order id as a flag's value.
fn parse_order_id(text: &str) -> Result<OrderId, String> {
    text.parse().map_err(|_| {
        "an order id looks like 01890a5d-ac96-774b-bcce-b302099a8057; `order-service list` shows them".to_owned()
    })
}
