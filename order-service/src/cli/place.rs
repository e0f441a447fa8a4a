//! `place`: one order, followed to its end.

use std::{path::PathBuf, time::Duration};

use clap::{CommandFactory, error::ErrorKind};
use event_runtime::{
    cli::{Format, Output, Paint, exit},
    config::positive_duration,
};
use tokio::time::Instant;

use super::{
    Cli, ServiceArgs,
    api::{NewItem, NewOrder},
    follow::{Followed, Pace, follow},
    item::{pair, parse_item},
    place_file,
    timeline::{TimelineWriter, state_paint},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 completed, 1 refused or failed, 2 usage, 3 cancelled, 124 no end in time.\n\
    With --file: 0 all ended, 1 some were refused, 124 some did not end in time.\n\n\
    Test cards: tok_visa, tok_chargeDeclined, tok_insufficient_funds, tok_flaky (fails twice, then works), \
    tok_timeout (charges, never answers)")]
pub struct PlaceArgs {
    /// What to order; each --sku takes its --quantity, or 1 without any
    #[arg(long, value_name = "SKU")]
    sku: Vec<String>,

    /// How many
    #[arg(long, value_name = "N")]
    quantity: Vec<u32>,

    /// What and how many in one, repeatable
    #[arg(long, value_name = "SKU=N", value_parser = parse_item)]
    item: Vec<NewItem>,

    /// Where mail about the order goes
    #[arg(long, value_name = "EMAIL", required_unless_present = "file")]
    customer: Option<String>,

    /// What the payment provider charges
    #[arg(long, value_name = "TOKEN", default_value = "tok_visa")]
    payment_token: String,

    /// A second order under the same key is the first one again
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Place many: a JSON object a line, with customer, items, paymentToken, idempotencyKey; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sku", "quantity", "item", "customer", "payment_token", "idempotency_key"])]
    file: Option<PathBuf>,

    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,

    /// How long to wait for an order's end [default: 10s; 60s with --file]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    timeout: Option<Duration>,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    service: ServiceArgs,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const FILE_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(args: PlaceArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    if let Some(file) = &args.file {
        let wait = (!args.no_wait).then(|| args.timeout.unwrap_or(FILE_TIMEOUT));
        return place_file::run(&args.service, file, wait, &output).await;
    }
    let order = args.order();
    let api = args.service.api(&output)?;
    let until = Instant::now() + args.timeout.unwrap_or(TIMEOUT);
    let (placed, answer) = api.place(&order, args.idempotency_key.as_deref()).await?;
    match output.format() {
        Format::Table => output.line(placed.order_id)?,
        Format::Jsonl => output.value(&answer)?,
        // One document: the order at its end.
        Format::Json if args.no_wait => output.value(&answer)?,
        Format::Json => output.note(format_args!("order {} is placed", placed.order_id)),
    }
    if args.no_wait {
        return Ok(exit::OK);
    }
    let mut timeline = TimelineWriter::new(&output);
    let as_document = output.format() == Format::Json;
    let followed = follow(&api, placed.order_id, Some(until), Pace::LIVE, |order, last| match as_document {
        true => Ok(()),
        false => timeline.update(order, last),
    });
    match followed.await? {
        Followed::Ended(order, value) => {
            match output.format() {
                Format::Table => {
                    let reason = order.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
                    let ending = format!("{}{reason} ({})", order.state, placed.total);
                    output.line(output.painted(state_paint(&order.state), ending))?;
                }
                Format::Json | Format::Jsonl => output.value(&value)?,
            }
            Ok(if order.is_cancelled() { exit::CANCELLED } else { exit::OK })
        }
        Followed::TimedOut { trouble } => {
            let id = placed.order_id;
            let waited = args.timeout.unwrap_or(TIMEOUT);
            output.note_painted(Some(Paint::Open), format_args!("order {id} has not ended within {waited:?}"));
            if let Some(trouble) = trouble {
                output.note(format_args!("the last question got no answer: {trouble}"));
            }
            output.note(format_args!("look it up:  order-service status {id}"));
            output.note(format_args!("ask for why: eventctl explain {id}"));
            Ok(exit::TIMED_OUT)
        }
    }
}

/// `place` with its own usage, where `Cli::command()` alone would show that of all commands.
fn place_command() -> clap::Command {
    let mut cli = Cli::command();
    // Until it is built, a subcommand does not know whose it is.
    cli.build();
    cli.find_subcommand("place").cloned().unwrap_or(cli)
}

impl PlaceArgs {
    /// The order of the flags. Ends the process as clap does when they do not fit together.
    fn order(&self) -> NewOrder {
        let usage = |kind, message: String| -> ! { place_command().error(kind, message).exit() };
        let mut items =
            pair(&self.sku, &self.quantity).unwrap_or_else(|message| usage(ErrorKind::WrongNumberOfValues, message));
        items.extend(self.item.iter().cloned());
        if items.is_empty() {
            let message = "nothing is ordered: add --sku COFFEE-1KG --quantity 1, or --item COFFEE-1KG=1".to_owned();
            usage(ErrorKind::MissingRequiredArgument, message);
        }
        let customer = self.customer.clone().unwrap_or_default();
        NewOrder { customer, items, payment_token: self.payment_token.clone() }
    }
}
