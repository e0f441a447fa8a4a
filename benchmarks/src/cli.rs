//! The command line.

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use event_runtime::{
    cli::{Format, Output, exit, finish},
    config::KafkaConfig,
    embedded::EmbeddedBroker,
    shutdown,
};
use futures_util::FutureExt as _;
use tracing_subscriber::EnvFilter;

use crate::{
    backlog,
    figure::{self, Results},
    keyed_io, orders, pass_through, poison, relay, scale,
    site::Site,
    start, transactional,
};

/// Measures event-runtime beside loops written by hand, on a Kafka of yours
#[derive(Parser)]
#[command(name = "benchmarks", version)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    workload: Workload,
}

/// What all workloads take.
#[derive(Args)]
pub struct Settings {
    #[command(flatten)]
    kafka: KafkaConfig,

    /// Measure on librdkafka's mock cluster, inside this process: to try a workload, not to learn figures
    #[arg(long, global = true)]
    embedded: bool,

    /// PostgreSQL for the workloads that need it; databases are made there and removed
    // The environment's value may hold a password, which `--help` would print.
    #[arg(long, global = true, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// How often each subject runs
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How figures are written: a table when all is done, or JSON
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Subcommand)]
enum Workload {
    /// Records through an empty handler, beside BaseConsumer and serde_json
    PassThrough(pass_through::Options),
    /// Handlers that wait, side by side and in order of their keys, beside the bound of their waits
    KeyedIo(keyed_io::Options),
    /// What a key that always fails costs the other keys, beside the run without it
    Poison(poison::Options),
    /// Outbox rows to the topic, beside a loop of select, produce and delete; needs PostgreSQL
    Relay(relay::Options),
    /// Inbox, business and outbox row of each record, beside loops of one and of many records a transaction
    Transactional(transactional::Options),
    /// Whether memory stays where it is while a consumer works off a long lag
    Backlog(backlog::Options),
    /// What more instances bring, and what a record costs with more keys and more partitions
    Scale(scale::Options),
    /// From process start to ready, and what an idle service takes; needs PostgreSQL
    Start(start::Options),
    /// The whole order system as processes: orders a second, time and cost of an order; needs PostgreSQL
    Orders(orders::Options),
    /// Skipped: the library has no request-reply yet
    RequestReply,
}

/// Runs what was asked for.
pub fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.settings.output);
    finish(measure(cli, &output))
}

fn measure(cli: Cli, output: &Output) -> anyhow::Result<u8> {
    // Records that fail do so on purpose, and each would say so.
    let quiet = || EnvFilter::new("error,event_runtime::consumer::attempt=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| quiet());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Workload::RequestReply = cli.workload {
        output.note("request-reply is skipped: the library has no request-reply yet");
        return Ok(exit::OK);
    }
    if cfg!(debug_assertions) {
        output.note("built without --release: what follows says nothing about speed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(at_a_site(cli))?;
    figure::write(output, &results)?;
    Ok(exit::OK)
}

/// How long it may take to remove what a workload has made, once it is interrupted.
const CLEARED_WITHIN: Duration = Duration::from_secs(60);

/// Whatever happens, what the workload has made is removed.
async fn at_a_site(cli: Cli) -> anyhow::Result<Vec<Results>> {
    let Cli { settings, workload } = cli;
    // Lives until the end.
    let embedded = match settings.embedded {
        true => Some(EmbeddedBroker::start(1).context("the embedded broker cannot be started")?),
        false => None,
    };
    let kafka = embedded.as_ref().map_or(settings.kafka, EmbeddedBroker::config);
    let site = Site::new(kafka, embedded, settings.database_url, settings.rounds)?;
    let outcome = tokio::select! {
        outcome = AssertUnwindSafe(workload.run(&site)).catch_unwind() => {
            outcome.unwrap_or_else(|_| Err(anyhow!("the workload panicked")))
        }
        () = shutdown::signal(CLEARED_WITHIN) => Err(anyhow!("interrupted")),
    };
    let cleared = site.clear().await;
    let results = outcome?;
    cleared?;
    Ok(results)
}

impl Workload {
    async fn run(self, site: &Site) -> anyhow::Result<Vec<Results>> {
        match self {
            Workload::PassThrough(options) => pass_through::run(site, &options).await,
            Workload::KeyedIo(options) => keyed_io::run(site, &options).await,
            Workload::Poison(options) => poison::run(site, &options).await,
            Workload::Relay(options) => relay::run(site, &options).await,
            Workload::Transactional(options) => transactional::run(site, &options).await,
            Workload::Backlog(options) => backlog::run(site, &options).await,
            Workload::Scale(options) => scale::run(site, &options).await,
            Workload::Start(options) => start::run(site, &options).await,
            Workload::Orders(options) => orders::run(site, &options).await,
            Workload::RequestReply => Ok(Vec::new()),
        }
    }
}
