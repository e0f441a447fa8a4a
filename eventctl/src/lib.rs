//! The operator's command line: what is on the topics, how far each consumer group is, why an order is stuck, and the way
//! back for dead letters.
//!
//! It looks and does not touch, but for `topics apply`, and the verbs of `dlt`, `replay-offsets` and `chaos` with
//! `--execute`; no consumer's group is ever joined. Services are asked over HTTP, Kafka directly; no service's database is
//! ever opened but the one that `replay-offsets --reprocess` is told of.

mod age;
pub mod chaos;
mod dlt;
mod explain;
pub mod lag;
mod replay_offsets;
mod tail;
mod topics;
pub mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use event_runtime::cli::{Output, exit, finish};

/// Looks into the event system: topics, events, lag, dead letters, and why an order is stuck.
///
/// Where Kafka and the services are comes from flags, else the environment (KAFKA_BROKERS, ORDER_SERVICE_URL, …), else
/// the .local-stack/env of a running `cargo run`, else the ports of the compose stack.
#[derive(Debug, Parser)]
#[command(name = "eventctl", version, max_term_width = 120)]
#[command(after_help = "Exit codes: 0 ok, 1 failure, 2 usage")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List topics, or create those that are missing
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// Show the records of topics as they come
    Tail(tail::TailArgs),
    /// Show how far each consumer group is behind
    Lag(lag::LagArgs),
    /// Move a group to other offsets, to read records again or to leave them out
    ///
    /// Prints the plan, and acts only with --execute, on a group without members.
    ReplayOffsets(replay_offsets::ReplayOffsetsArgs),
    /// Say why an order is where it is, and what to do next
    Explain(explain::ExplainArgs),
    /// Look at what could not be handled, and put it back
    #[command(subcommand)]
    Dlt(dlt::DltCommand),
    /// Check that every order ended once, was charged, mailed and served as it ended, and that nothing was lost
    Verify(verify::VerifyArgs),
    /// Break a test or demo stack on purpose, to see that it bears it
    ///
    /// Prints the plan, and acts only with --execute, and only where the fake payment gateway answers.
    #[command(subcommand)]
    Chaos(chaos::ChaosCommand),
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    finish(match cli.command {
        Command::Topics(command) => block_on(topics::run(command)),
        Command::Tail(args) => tail::run(&args),
        Command::Lag(args) => lag::run(&args),
        Command::ReplayOffsets(args) => block_on(replay_offsets::run(args)),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Dlt(command) => block_on(dlt::run(command)),
        Command::Verify(args) => block_on(verify::run(args)),
        Command::Chaos(command) => block_on(chaos::run(command)),
        Command::Completions { shell } => completions(shell),
    })
}

fn block_on(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    // Into memory first: the generator panics when stdout is a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eventctl", &mut script);
    Output::new(Default::default()).line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(exit::OK)
}
