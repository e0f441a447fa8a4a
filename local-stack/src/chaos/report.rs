//! What chaos did and what came of it: counted, and where to look.

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use event_runtime::config::KafkaConfig;
use eventctl::{lag, verify::gather::charges};
use shared_events::topics::GROUPS;
use tokio::time::sleep;

use super::{Chaos, Fault};
use crate::Addresses;

/// How long records may wait to be handled before the report says what is so far.
const PATIENCE: Duration = Duration::from_secs(30);

impl Chaos {
    /// What was done so far and what the services made of it, once what was written has been handled.
    ///
    /// # Errors
    /// When a service does not answer.
    pub async fn report(&self, addresses: &Addresses, kafka: &KafkaConfig) -> anyhow::Result<String> {
        // What is counted below comes to a rest only where brokers answer throughout.
        let counts = |fault: &Fault| matches!(fault, Fault::Duplicates(_) | Fault::Poison(_));
        let rest = !self.faults.0.iter().any(counts) || self.at_rest(kafka).await;
        let mut text = String::from("\nChaos on purpose: what was done so far, and what came of it\n");
        for fault in &self.faults.0 {
            let (did, look) = self.told(*fault, addresses).await?;
            writeln!(text, "  {:<17} {did}\n  {:<17} look: {look}", fault.name(), "")?;
        }
        let ledger = charges(addresses.url("payment-gateway-fake")).await?;
        let keys: HashSet<_> = ledger.iter().map(|charge| &charge.idempotency_key).collect();
        writeln!(text, "  => {} charges in the gateway's ledger, for {} orders", ledger.len(), keys.len())?;
        if !rest {
            writeln!(text, "  Records may still wait to be handled after {PATIENCE:?}: `eventctl lag` says which")?;
        }
        Ok(text)
    }

    async fn told(&self, fault: Fault, addresses: &Addresses) -> anyhow::Result<(String, String)> {
        let done = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let payment = addresses.url("payment-service");
        let counted = async |metric| counted(addresses, metric).await;
        Ok(match fault {
            Fault::Duplicates(_) => (
                format!(
                    "{} events were delivered twice; the services counted {} duplicates and did nothing",
                    done(&self.done.copies),
                    counted("consumer_records_duplicate_total").await?
                ),
                format!(
                    "curl -s {payment}/metrics | grep duplicate; cargo run -p eventctl -- tail orders --from start"
                ),
            ),
            Fault::GatewayFailures(_) => (
                format!("{fault}; attempts made again: {}", counted("consumer_records_retried_total").await?),
                "column TRY of cargo run -p order-service -- status ORDER_ID".to_owned(),
            ),
            Fault::Poison(_) => (
                format!(
                    "{} records that nobody can read were written: {} dead letters in the groups that read the topic",
                    done(&self.done.poison),
                    counted("consumer_dead_letters_total").await?
                ),
                "cargo run -p eventctl -- dlt list".to_owned(),
            ),
            Fault::Delays(_) => {
                (fault.to_string(), "the times in cargo run -p order-service -- status ORDER_ID".to_owned())
            }
            Fault::DropConnection(_) => (
                format!("all connections to the brokers were dropped {} times", done(&self.done.drops)),
                "cargo run -p eventctl -- lag --watch".to_owned(),
            ),
            Fault::BrokerPause(pause) => (
                format!("all brokers were away {} times, for {pause:?} each", done(&self.done.pauses)),
                "cargo run -p eventctl -- lag --watch".to_owned(),
            ),
            Fault::Crash => (
                format!(
                    "payment-service was killed {} time with the money taken and nothing committed; it asked the gateway \
                     by key, and charged no second time",
                    done(&self.done.crashes)
                ),
                format!("curl -s {}/charges", addresses.url("payment-gateway-fake")),
            ),
        })
    }

    /// Whether nothing waits any more, copies of what was handled last included.
    async fn at_rest(&self, kafka: &KafkaConfig) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut before = None;
        while Instant::now() < until {
            let asked = kafka.clone();
            let lags = tokio::task::spawn_blocking(move || lag::of_groups(&asked, GROUPS)).await;
            let waiting = lags.ok().and_then(Result::ok).map(|rows| rows.iter().map(|row| row.lag).sum::<i64>());
            let now = (waiting, self.done.copies.load(Ordering::Relaxed));
            if waiting == Some(0) && before == Some(now) {
                return true;
            }
            before = Some(now);
            // Longer than a record takes to be read and copied, and an offset to be committed.
            sleep(Duration::from_millis(500)).await;
        }
        false
    }
}

/// The sum of a counter over all services.
async fn counted(addresses: &Addresses, metric: &str) -> anyhow::Result<u64> {
    let mut sum = 0.0;
    for (service, url) in addresses.services.iter().filter(|(service, _)| *service != "payment-gateway-fake") {
        let unreadable = || format!("{service} does not say what it counted at {url}/metrics");
        let text = reqwest::get(format!("{url}/metrics")).await.with_context(unreadable)?.text().await?;
        let samples = text.lines().filter(|line| line.starts_with(metric));
        sum += samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum as u64)
}
