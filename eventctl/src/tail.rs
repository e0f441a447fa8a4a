//! `tail`: the records of topics.

use event_runtime::{
    Clock, Record,
    cli::{BrokerArgs, Format, Output, ReadArgs, exit, follow},
    config::discovery::Discovery,
};

#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// Which topics, such as orders or orders.payment-service.dlt
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,

    /// Only records with this key, such as an order's id
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    #[command(flatten)]
    read: ReadArgs,

    /// How to write it; json and jsonl have the headers
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    brokers: BrokerArgs,
}

pub fn run(args: &TailArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let kafka = args.brokers.find(&output, &Discovery::from_process());
    let wanted = |record: &Record| args.key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
    follow(&output, &kafka, &args.topics, &args.read, Clock::system().now(), wanted)?;
    Ok(exit::OK)
}
