//! The orders a fresh stack places by itself, one for each way an order can end.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// One sample: what is ordered, and how it must end.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What it shows, for the heading.
    pub shows: &'static str,
    pub(crate) items: &'static [(&'static str, u32)],
    pub(crate) token: &'static str,
    pub(crate) ends: &'static str,
    /// Events that must be there when all is at rest.
    pub(crate) leaves: &'static [&'static str],
}

/// What a paid order leaves.
pub(crate) const PAID: &[&str] =
    &["payment.succeeded", "stock.reserved", "order.completed", "stock.committed", "mail.sent"];

/// Paid, declined, out of stock.
pub const SAMPLES: &[Sample] = &[
    Sample {
        shows: "paid: charged and reserved in parallel, then completed",
        items: &[("COFFEE-1KG", 2), ("MUG-BLUE", 1)],
        token: "tok_visa",
        ends: "completed",
        leaves: PAID,
    },
    Sample {
        shows: "declined: the card is refused, so what was reserved is released",
        items: &[("TEA-GREEN-250G", 1)],
        token: "tok_chargeDeclined",
        ends: "cancelled",
        leaves: &["payment.failed", "order.cancelled", "stock.released", "mail.sent"],
    },
    Sample {
        shows: "out of stock: nothing to reserve, so the charge is refunded",
        items: &[("GIFT-CARD-RARE", 1)],
        token: "tok_visa",
        ends: "cancelled",
        leaves: &["stock.rejected", "order.cancelled", "payment.refunded", "mail.sent"],
    },
];

/// An order as order-service shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub order_id: String,
    /// `pending`, `completed` or `cancelled`.
    pub state: String,
    /// Why it was cancelled.
    #[serde(default)]
    pub reason: Option<String>,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
}

/// One line of a timeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// Who said it.
    pub service: String,
    /// What happened.
    pub event: String,
    /// Where it was published.
    #[serde(default)]
    pub topic: Option<String>,
    /// The partition, once published.
    #[serde(default)]
    pub partition: Option<i32>,
    /// The offset, once published.
    #[serde(default)]
    pub offset: Option<i64>,
}

/// Places `sample` and follows it until it has ended as it should and everything it set in motion is done.
///
/// # Errors
/// When it is refused, ends otherwise, or does not come to rest within `patience`.
pub async fn play(order_url: &str, sample: &Sample, patience: Duration) -> anyhow::Result<Order> {
    let id = place(order_url, sample).await?;
    let deadline = Instant::now() + patience;
    loop {
        let order = fetch(order_url, &id).await?;
        let missing: Vec<_> = sample.leaves.iter().filter(|event| !order.has(event)).collect();
        if order.state != "pending" {
            ensure!(order.state == sample.ends, "order {id} is {}, and should be {}", order.state, sample.ends);
            if missing.is_empty() {
                return Ok(order);
            }
        }
        if Instant::now() >= deadline {
            bail!("order {id} is {} after {patience:?} and lacks {missing:?}", order.state);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn place(order_url: &str, sample: &Sample) -> anyhow::Result<String> {
    let items: Vec<_> =
        sample.items.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
    let body = json!({ "customer": "ada@example.com", "items": items, "paymentToken": sample.token });
    let response = reqwest::Client::new().post(format!("{order_url}/orders")).json(&body).send().await?;
    let status = response.status();
    let answer: serde_json::Value = response.json().await.with_context(|| format!("order refused ({status})"))?;
    answer["orderId"].as_str().map(str::to_owned).with_context(|| format!("order refused ({status}): {answer}"))
}

async fn fetch(order_url: &str, id: &str) -> anyhow::Result<Order> {
    let response = reqwest::get(format!("{order_url}/orders/{id}")).await?.error_for_status()?;
    response.json().await.with_context(|| format!("order {id} cannot be read"))
}

impl Order {
    fn has(&self, event: &str) -> bool {
        self.timeline.iter().any(|entry| entry.event == event)
    }
}
