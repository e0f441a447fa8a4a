//! The context of Kafka clients, and how to notice one that knows no broker any more.
//!
//! librdkafka, from 2.10, gives up the brokers that an answer about topics does not list. A broker that starts or stops
//! may list none at all: then the client has nobody left to connect to or to ask, says nothing of it, and stays so for
//! ever (<https://github.com/confluentinc/librdkafka/issues/5301>, open in 2.15). Only its statistics show it, and only
//! a new client helps.

use std::{collections::HashMap, ops::Deref, thread};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// How often a client says what it knows, where `-X` does not say otherwise. 0 would leave it stranded.
const STATISTICS_INTERVAL_MS: &str = "5000";

/// Has a client say what it knows, in `stats_raw` of its context.
pub(crate) fn report_statistics(config: &mut ClientConfig) {
    if config.get("statistics.interval.ms").is_none() {
        config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
    }
}

/// Whether a client with these statistics knows no broker.
pub(crate) fn is_stranded(statistics: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Statistics {
        brokers: HashMap<String, Broker>,
    }
    #[derive(Deserialize)]
    struct Broker {
        source: String,
    }
    // The others are handles of the client's own, such as for whoever coordinates its group.
    let is_real = |broker: &Broker| matches!(broker.source.as_str(), "configured" | "learned");
    serde_json::from_slice(statistics).is_ok_and(|Statistics { brokers }| !brokers.values().any(is_real))
}

/// Sends librdkafka's words to our log, quietly: who waits for an answer is told as well, and says what it means.
pub(crate) struct QuietContext {
    stranded: CancellationToken,
}

impl QuietContext {
    /// A client, and what tells that it is stranded if it reports its statistics.
    pub(crate) fn connect<C>(config: &ClientConfig) -> KafkaResult<(C, CancellationToken)>
    where
        C: FromClientConfigAndContext<QuietContext>,
    {
        let stranded = CancellationToken::new();
        Ok((config.create_with_context(QuietContext { stranded: stranded.clone() })?, stranded))
    }
}

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Settings for other kinds of clients, given to all with -X.
            RDKafkaLogLevel::Warning if facility == "CONFWARN" => tracing::debug!("{message}"),
            // A broker that cannot be reached: a line of ours says so, in words, and whose.
            RDKafkaLogLevel::Error if facility == "FAIL" => tracing::debug!("{message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!("{facility}: {message}");
            }
            _ => tracing::debug!("{facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client reports");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if is_stranded(statistics) {
            self.stranded.cancel();
        }
    }
}

impl ConsumerContext for QuietContext {}

/// A client of one owner, who goes on with a new one when this one is stranded.
pub(crate) struct Renewable<C> {
    config: ClientConfig,
    client: C,
    stranded: CancellationToken,
}

impl<C> Renewable<C>
where
    C: FromClientConfigAndContext<QuietContext> + Send + 'static,
{
    pub(crate) fn connect(mut config: ClientConfig) -> KafkaResult<Renewable<C>> {
        report_statistics(&mut config);
        let (client, stranded) = QuietContext::connect(&config)?;
        Ok(Renewable { config, client, stranded })
    }

    /// As far as the client has been polled.
    pub(crate) fn is_stranded(&self) -> bool {
        self.stranded.is_cancelled()
    }

    /// Nothing is assigned to the new client.
    pub(crate) fn renew(&mut self) -> KafkaResult<()> {
        let (client, stranded) = QuietContext::connect(&self.config)?;
        let replaced = std::mem::replace(&mut self.client, client);
        self.stranded = stranded;
        // It may wait for brokers.
        thread::spawn(move || drop(replaced));
        Ok(())
    }
}

impl<C> Deref for Renewable<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

#[cfg(test)]
mod tests {
    use super::is_stranded;

    #[test]
    fn a_client_is_stranded_without_a_broker_that_it_was_given_or_told_of() {
        let statistics = |sources: &[&str]| {
            let brokers: serde_json::Map<_, _> = sources
                .iter()
                .map(|source| (format!("{source}:9092"), serde_json::json!({ "source": source, "state": "UP" })))
                .collect();
            serde_json::json!({ "name": "rdkafka#consumer-1", "brokers": brokers }).to_string()
        };
        assert!(is_stranded(statistics(&["logical", "internal"]).as_bytes()));
        assert!(is_stranded(statistics(&[]).as_bytes()));
        assert!(!is_stranded(statistics(&["logical", "learned"]).as_bytes()));
        assert!(!is_stranded(statistics(&["configured"]).as_bytes()));
        assert!(!is_stranded(b"unreadable"));
    }
}
