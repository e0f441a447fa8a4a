//! The faults that the fake payment gateway can be told to have.

use std::time::Duration;

use anyhow::{Context, bail};
use event_runtime::{
    cli::{Format, exit},
    config::duration,
};
use serde_json::{Value, json};

use super::{Target, TargetArgs};

/// How long the gateway may take to take a fault.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub struct FailuresArgs {
    /// The share that fails, from 0 (none any more) to 1; above 0.75 payments fail for good
    #[arg(value_name = "RATE", value_parser = rate)]
    rate: f64,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
pub struct DelaysArgs {
    /// How long each takes, such as 500ms; 0s for no longer than needed
    #[arg(value_name = "DURATION", value_parser = duration)]
    delay: Duration,

    #[command(flatten)]
    target: TargetArgs,
}

pub async fn failures(args: FailuresArgs) -> anyhow::Result<u8> {
    let target = args.target.find().await?;
    let what = format!("the payment gateway fails a share of {} of charges and refunds", args.rate);
    let see = "`order-service place` shows the attempts in the column TRY, \
               consumer_records_retried_total at payment-service's /metrics counts them; \
               `eventctl chaos gateway-failures 0 --execute` ends it";
    set(&target, json!({ "failureRate": args.rate }), &what, see).await
}

pub async fn delays(args: DelaysArgs) -> anyhow::Result<u8> {
    let target = args.target.find().await?;
    let what = format!("the payment gateway takes {:?} for each charge and refund", args.delay);
    let see = "above PAYMENT_GATEWAY_TIMEOUT (2 s) payment-service gives up waiting and asks by key; \
               `eventctl chaos delays 0s --execute` ends it";
    set(&target, json!({ "delayMs": u64::try_from(args.delay.as_millis())? }), &what, see).await
}

async fn set(target: &Target, faults: Value, what: &str, see: &str) -> anyhow::Result<u8> {
    let faults = target.gateway.with(faults);
    match target.output.format() {
        Format::Table => target.output.line(format_args!("faults of the payment gateway: {faults}"))?,
        Format::Json | Format::Jsonl => {
            target.output.value(&json!({ "executed": target.execute, "gateway": faults }))?;
        }
    }
    if target.goes_ahead(what) {
        target.gateway.set(&faults).await?;
        target.output.note(format_args!("it is so now: {see}"));
    }
    Ok(exit::OK)
}

/// A payment gateway that has shown that it moves no money.
#[derive(Clone, Debug)]
pub struct FakeGateway {
    http: reqwest::Client,
    url: String,
    faults: Value,
}

impl FakeGateway {
    /// The gateway at `url`: only the fake one has faults to ask for.
    ///
    /// # Errors
    /// When nobody answers there, or somebody else.
    pub async fn find(url: &str) -> anyhow::Result<FakeGateway> {
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let url = format!("{}/faults", url.trim_end_matches('/'));
        let answer = http.get(&url).send().await.with_context(|| {
            format!(
                "there is no stack to break: no payment gateway answers at {url}. Start one with `cargo run` or \
                 `docker compose up --wait`, or name its gateway with --gateway-url"
            )
        })?;
        let status = answer.status();
        match answer.json().await {
            Ok(faults @ Value::Object(_)) if status.is_success() => Ok(FakeGateway { http, url, faults }),
            _ => bail!(
                "what answers at {url} ({status}) is not the fake payment gateway: chaos is for test and demo stacks \
                 only. Name the fake one with --gateway-url"
            ),
        }
    }

    /// The faults it has, with `more`.
    pub fn with(&self, more: Value) -> Value {
        let mut faults = self.faults.clone();
        if let (Some(faults), Value::Object(more)) = (faults.as_object_mut(), more) {
            faults.extend(more);
        }
        faults
    }

    /// Replaces its faults.
    ///
    /// # Errors
    /// When it does not take them.
    pub async fn set(&self, faults: &Value) -> anyhow::Result<()> {
        let answer = self.http.put(&self.url).json(faults).send().await;
        let answer = answer.with_context(|| format!("the payment gateway at {} does not answer", self.url))?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the payment gateway refuses {faults} ({status}): {}", answer.text().await.unwrap_or_default());
        }
        Ok(())
    }
}

/// A share from 0 to 1.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "a rate is a number from 0 to 1, such as 0.3".to_owned())
}
