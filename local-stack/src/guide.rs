//! What a newcomer reads: the sample orders as they went, and what to type next.

use std::io::{self, Write};

use crate::{
    Addresses, Folder,
    samples::{Entry, Order, Sample},
};

/// Writes `text` for the reader at once, between the services' log lines.
///
/// # Errors
/// When nobody reads any more.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// What is about to be seen.
pub fn opening() -> String {
    "\
The order system, in one process: an embedded Kafka broker, a SQLite file a service, a fake payment gateway, and

  order-service      takes orders and ends them            topic orders
  payment-service    charges, and refunds                  topic payments
  inventory-service  reserves stock, sells or releases it  topic inventory
  email-service      tells the customer                    topic mails

They talk through topics alone. Three sample orders follow; the lines in between are what the services log.

"
    .to_owned()
}

/// A sample and its timeline.
pub fn order(sample: &Sample, order: &Order) -> String {
    let mut text = format!("\nSample order {}\n  {}\n", order.order_id, sample.shows);
    for entry in &order.timeline {
        text.push_str(&format!(
            "  {:<12}  {:<18} {:<20} {}\n",
            clock_time(entry),
            entry.service,
            entry.event,
            position(entry)
        ));
    }
    let reason = order.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    text.push_str(&format!("  => {}{reason}\n", order.state));
    text
}

/// Where what the samples left is, for a stack that ends.
pub fn closing(folder: &Folder) -> String {
    format!("\nAll sample orders ended as they should. Their mails are in {}.\n", folder.mails().display())
}

/// What runs where, and what to type next.
pub fn next_steps(addresses: &Addresses, folder: &Folder) -> String {
    let reached = match folder.is_found() {
        true => "without flags".to_owned(),
        false => format!("after `set -a; . {}; set +a`", folder.addresses().display()),
    };
    let mut text = format!("\nEverything runs in this process; other terminals reach it {reached}.\n");
    for (name, url) in std::iter::once(("kafka (embedded)", addresses.kafka.as_str()))
        .chain(addresses.services.iter().map(|(name, url)| (*name, url.as_str())))
    {
        text.push_str(&format!("  {name:<22} {url}\n"));
    }
    text.push_str(&format!("  {:<22} {}\n", "mails", folder.mails().display()));
    text.push_str(
        "
Try, in another terminal of this folder:
  cargo run -p order-service -- place --sku COFFEE-1KG --quantity 2 --customer you@example.com
  cargo run -p order-service -- place --item TEA-GREEN-250G=1 --customer you@example.com --payment-token tok_flaky
  cargo run -p order-service -- list
  cargo run -p order-service -- status ORDER_ID
  cargo run -p order-service -- watch --from start --exit
  cargo run -p eventctl -- lag
  cargo run -p eventctl -- explain ORDER_ID

Stop with ctrl-c. The next start begins afresh.
",
    );
    text
}

/// `hh:mm:ss.mmm` of an RFC 3339 time.
fn clock_time(entry: &Entry) -> &str {
    let time = entry.time.split('T').nth(1).unwrap_or(&entry.time);
    time.get(..12).unwrap_or(time)
}

fn position(entry: &Entry) -> String {
    match (&entry.topic, entry.partition, entry.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("{topic}[{partition}]@{offset}"),
        _ => String::new(),
    }
}
