//! `list`: orders, page by page.

use event_runtime::cli::{Format, Output, exit, one_line};
use serde_json::Value;

use super::{ServiceArgs, api::Order, timeline::state_paint};

/// How many orders one question is for; order-service's own limit.
const PAGE: usize = 100;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only orders in this state
    #[arg(long, value_name = "STATE", value_parser = ["pending", "completed", "cancelled"])]
    state: Option<String>,

    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    service: ServiceArgs,
}

pub async fn run(args: ListArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let api = args.service.api(&output)?;
    let mut orders: Vec<Value> = Vec::new();
    let mut after = None;
    let mut more = true;
    while more && orders.len() < args.limit {
        let wanted = (args.limit - orders.len()).min(PAGE);
        let page = api.orders(args.state.as_deref(), wanted, after.as_deref()).await?;
        more = page.next.is_some() && !page.orders.is_empty();
        after = page.next;
        match output.format() {
            // Rows go out as they come, so that a long list does not have to fit into memory.
            Format::Jsonl => output.rows(&page.orders)?,
            Format::Table | Format::Json => {}
        }
        orders.extend(page.orders);
    }
    match output.format() {
        Format::Jsonl => {}
        Format::Json => output.rows(&orders)?,
        Format::Table => write_table(&output, &orders)?,
    }
    if more && output.is_table() {
        output.note(format_args!("there are more; --limit {} shows them", args.limit.saturating_mul(10).max(10)));
    }
    Ok(exit::OK)
}

fn write_table(output: &Output, orders: &[Value]) -> anyhow::Result<()> {
    let mut rows = Vec::with_capacity(orders.len());
    for order in orders {
        let order: Order = serde::Deserialize::deserialize(order)?;
        let row = vec![
            order.order_id.to_string(),
            order.state.clone(),
            order.total.map_or("-".to_owned(), |total| total.to_string()),
            order.created_at.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string()),
            order.customer.clone(),
            one_line(order.reason.as_deref().unwrap_or_default()),
        ];
        rows.push((state_paint(&order.state), row));
    }
    output.table(&["ORDER", "STATE", "TOTAL", "CREATED (UTC)", "CUSTOMER", "REASON"], &rows)?;
    Ok(())
}
