//! `chaos`: faults on purpose, for tests and demos. What to do to a record is said here once; `local-stack --chaos` and the
//! end-to-end tests do the same to theirs.
//!
//! From outside only what Kafka and the fake payment gateway take can be broken: the rest (brokers that pause, connections
//! that break, a service that is killed at its worst moment) is for the embedded stack, which holds them in its process.
//!
//! Nothing is done where no *fake* payment gateway answers: a system that charges real money is not to be broken by a
//! command that found its address in an environment variable.

pub mod duplicates;
pub mod gateway;
pub mod poison;

use anyhow::bail;
use clap::Subcommand;
use event_runtime::{
    cli::{BrokerArgs, Format, Output, Paint, announce},
    config::{
        KafkaConfig,
        discovery::{Discovery, PAYMENT_GATEWAY},
    },
};

use gateway::FakeGateway;

/// The header by which records of chaos are known, beside those of an event. Nobody acts on it but who makes duplicates: what
/// chaos wrote is not delivered twice, or it would have no end.
pub const MARK: &str = "chaos";

#[derive(Debug, Subcommand)]
pub enum ChaosCommand {
    /// Deliver events a second time, under the same event ids
    Duplicates(duplicates::DuplicatesArgs),
    /// Write records that no consumer can read
    Poison(poison::PoisonArgs),
    /// Let the payment gateway fail a share of the charges and refunds; every other one of them is carried out
    GatewayFailures(gateway::FailuresArgs),
    /// Let the payment gateway take its time for charges and refunds
    Delays(gateway::DelaysArgs),
    /// In the embedded stack only: cargo run -- --chaos drop-connection
    DropConnection,
    /// In the embedded stack only: cargo run -- --chaos broker-pause
    BrokerPause,
    /// In the embedded stack only: cargo run -- --chaos crash
    Crash,
}

/// What every fault takes.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArgs {
    /// The fake payment gateway; where none answers nothing is broken
    #[arg(long, value_name = "URL")]
    gateway_url: Option<String>,

    /// Do it
    #[arg(long)]
    execute: bool,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    brokers: BrokerArgs,
}

/// A stack that may be broken.
struct Target {
    output: Output,
    kafka: KafkaConfig,
    gateway: FakeGateway,
    execute: bool,
}

pub async fn run(command: ChaosCommand) -> anyhow::Result<u8> {
    match command {
        ChaosCommand::Duplicates(args) => duplicates::run(args).await,
        ChaosCommand::Poison(args) => poison::run(args).await,
        ChaosCommand::GatewayFailures(args) => gateway::failures(args).await,
        ChaosCommand::Delays(args) => gateway::delays(args).await,
        ChaosCommand::DropConnection => embedded_only("drop-connection", "docker compose restart kafka"),
        ChaosCommand::BrokerPause => embedded_only("broker-pause", "docker compose pause kafka"),
        ChaosCommand::Crash => embedded_only("crash", "docker compose kill payment-service, and docker compose up -d"),
    }
}

fn embedded_only(fault: &str, nearest: &str) -> anyhow::Result<u8> {
    bail!(
        "{fault} can be had from inside a stack only: start the embedded one with `cargo run -- --chaos {fault}`. What comes \
         nearest to it under compose is `{nearest}`"
    )
}

impl TargetArgs {
    /// The stack that is found, once its gateway has shown that it is a fake.
    async fn find(&self) -> anyhow::Result<Target> {
        let output = Output::new(self.output);
        let discovery = Discovery::from_process();
        let kafka = self.brokers.find(&output, &discovery);
        let found = announce(&output, &discovery, "payment gateway", self.gateway_url.as_deref(), PAYMENT_GATEWAY);
        let gateway = FakeGateway::find(&found.value).await?;
        Ok(Target { output, kafka, gateway, execute: self.execute })
    }
}

impl Target {
    /// Says loudly what is done, or what would be. Whether to go on.
    fn goes_ahead(&self, what: &str) -> bool {
        if self.execute {
            self.output.note_painted(
                Some(Paint::Bad),
                format_args!("CHAOS: {what}, on purpose. For tests and demos only, never for a system in use"),
            );
        } else {
            self.output.note(format_args!("this is the plan: {what}; --execute does it, to a test or demo stack only"));
        }
        self.execute
    }
}
