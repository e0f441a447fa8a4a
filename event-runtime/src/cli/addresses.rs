//! Where a command finds what it talks to; stderr is told.

use super::{Format, Output, Paint};
use crate::config::{
    KafkaConfig,
    discovery::{Address, Discovery, Found, KAFKA},
};

/// Which Kafka a command talks to.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BrokerArgs {
    /// Kafka bootstrap servers, separated by commas
    // No `env` here: discovery reads the environment itself, to be able to say where the address came from.
    #[arg(short = 'b', long, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,

    /// A librdkafka setting, repeatable
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

impl BrokerArgs {
    /// The configuration of the Kafka that is found, which stderr is told.
    pub fn find(&self, output: &Output, discovery: &Discovery) -> KafkaConfig {
        let found = announce(output, discovery, "Kafka", self.brokers.as_deref(), KAFKA);
        let mut kafka = KafkaConfig::new(found.value);
        kafka.settings.clone_from(&self.settings);
        kafka
    }
}

/// What a command takes that asks Kafka and writes what it finds.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KafkaArgs {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    brokers: BrokerArgs,
}

impl KafkaArgs {
    /// Where to write, and the Kafka that is found, which stderr is told.
    pub fn start(&self) -> (Output, KafkaConfig) {
        let output = Output::new(self.output);
        let kafka = self.brokers.find(&output, &Discovery::from_process());
        (output, kafka)
    }
}

/// Looks `address` up and says on stderr which was found, and who said it.
pub fn announce(output: &Output, discovery: &Discovery, name: &str, flag: Option<&str>, address: Address) -> Found {
    if let Some(warning) = discovery.warning() {
        output.note(format_args!("warning: {warning}"));
    }
    let found = discovery.find(flag, address);
    output.note_painted(Some(Paint::Dim), format_args!("{name} at {} ({})", found.value, found.source));
    found
}
