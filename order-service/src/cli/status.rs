//! `status`: where an order stands, and its timeline.

use event_runtime::cli::{Format, Output, exit};
use shared_events::OrderId;

use super::{
    ServiceArgs,
    api::Order,
    follow::{Followed, Pace, follow},
    timeline::{TimelineWriter, state_paint},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 completed or pending, 1 unknown order or failure, 3 cancelled")]
pub struct StatusArgs {
    /// The order's id, as `place` printed it
    #[arg(value_name = "ORDER", value_parser = super::parse_order_id)]
    order: OrderId,

    /// Stay until the order has ended, and show events as they come
    #[arg(long)]
    watch: bool,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    service: ServiceArgs,
}

pub async fn run(args: StatusArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let api = args.service.api(&output)?;
    let (mut order, mut value) = api.order(args.order).await?;
    if args.watch {
        if output.is_table() {
            write_head(&output, &order)?;
        }
        let as_document = output.format() == Format::Json;
        let mut timeline = TimelineWriter::new(&output);
        let followed = follow(&api, args.order, None, Pace::LIVE, |order, last| match as_document {
            true => Ok(()),
            false => timeline.update(order, last),
        });
        if let Followed::Ended(last, last_value) = followed.await? {
            (order, value) = (last, last_value);
        }
        match output.format() {
            Format::Table => write_state(&output, &order)?,
            Format::Json | Format::Jsonl => output.value(&value)?,
        }
        return Ok(exit_code(&order));
    }
    match output.format() {
        Format::Table => {
            write_head(&output, &order)?;
            write_state(&output, &order)?;
            TimelineWriter::new(&output).update(&order, true)?;
        }
        Format::Json | Format::Jsonl => output.value(&value)?,
    }
    Ok(exit_code(&order))
}

fn exit_code(order: &Order) -> u8 {
    if order.is_cancelled() { exit::CANCELLED } else { exit::OK }
}

fn write_head(output: &Output, order: &Order) -> std::io::Result<()> {
    let items: Vec<String> = order.items.iter().map(|item| format!("{} x {}", item.quantity, item.sku)).collect();
    let total = order.total.map_or(String::new(), |total| format!(", {total}"));
    output.line(format_args!("order     {}", order.order_id))?;
    output.line(format_args!("customer  {}", order.customer))?;
    output.line(format_args!("items     {}{total}", items.join(", ")))?;
    match order.created_at {
        Some(time) => output.line(format_args!("placed    {}", time.strftime("%Y-%m-%d %H:%M:%S UTC"))),
        None => Ok(()),
    }
}

fn write_state(output: &Output, order: &Order) -> std::io::Result<()> {
    let reason = order.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
    let state = output.painted(state_paint(&order.state), format_args!("{}{reason}", order.state));
    output.line(format_args!("state     {state}"))
}
