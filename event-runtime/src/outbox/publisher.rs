//! Sends one row until Kafka has it, or never will, or this relay may no longer send it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};
use tokio::time::{sleep, timeout};

use super::{Metrics, Published, outage::Outage, row::StoredRow, share::Share, table::Fate, waiting::Waiting};
use crate::{
    Clock, Origin,
    error::Chain,
    producer::{ProduceError, Producer},
};

pub(super) struct Publisher {
    pub producer: Producer,
    pub service: &'static str,
    pub clock: Clock,
    pub metrics: Metrics,
    pub unknown_topic_patience: Duration,
    pub patience: Duration,
    pub share: Share,
    pub kafka: Outage,
    /// Topics that a row has waited for in vain, and when it gave up. The rows behind it need not all wait as long.
    missing: Mutex<HashMap<String, Instant>>,
}

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The producer gives up by itself after 30 s (`message.timeout.ms`), so one that says nothing for twice as long never will.
/// Where that is set to more, a record is handed over again while the first one is on its way still: of one key only one row
/// is, so that this repeats it and puts nothing out of order.
const UNANSWERED: Duration = Duration::from_secs(60);

impl Publisher {
    pub fn new(producer: Producer, service: &'static str, clock: Clock, waiting: Arc<Waiting>) -> Publisher {
        Publisher {
            producer,
            service,
            clock,
            metrics: Metrics::unregistered(),
            unknown_topic_patience: Duration::from_secs(60),
            patience: UNANSWERED,
            share: Share::default(),
            kafka: Outage::of("Kafka", service, waiting),
            missing: Mutex::default(),
        }
    }

    /// What became of `row`; nothing if it is no longer this relay's, which is looked at before each attempt.
    pub async fn deliver(&self, row: StoredRow) -> (StoredRow, Option<Fate>) {
        let began = Instant::now();
        let mut backoff = Duration::from_millis(100);
        loop {
            if !self.share.allows(&row, Instant::now()) {
                return (row, None);
            }
            let error = match self.send(&row).await {
                Ok(origin) => {
                    self.kafka.over();
                    self.count_published(&row);
                    let published = Published { event_id: row.event_id, origin };
                    return (row, Some(Fate::Published(published)));
                }
                Err(error) => error,
            };
            self.metrics.retries.inc();
            match &error {
                ProduceError::TooLarge { .. } => return self.set_aside(row, &error),
                ProduceError::UnknownTopic { .. } if self.waited_for_topic(&row.topic, began) => {
                    return self.set_aside(row, &error);
                }
                ProduceError::UnknownTopic { .. } => {
                    let (id, error) = (row.event_id, Chain(&error).to_string());
                    tracing::warn!(service = self.service, event = %id, error, "the event waits for its topic");
                }
                _ => self.kafka.failed(&error),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send(&self, row: &StoredRow) -> Result<Origin, ProduceError> {
        timeout(self.patience, self.producer.send(row.to_record())).await.unwrap_or_else(|_| {
            self.metrics.timeouts.inc();
            let source = KafkaError::MessageProduction(RDKafkaErrorCode::OperationTimedOut);
            Err(ProduceError::NotAcknowledged { topic: row.topic.clone(), source })
        })
    }

    fn waited_for_topic(&self, topic: &str, since: Instant) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if since.elapsed() >= self.unknown_topic_patience {
            missing.insert(topic.to_owned(), Instant::now());
            return true;
        }
        missing.get(topic).is_some_and(|given_up| given_up.elapsed() < self.unknown_topic_patience)
    }

    fn set_aside(&self, row: StoredRow, error: &ProduceError) -> (StoredRow, Option<Fate>) {
        let reason = Chain(error).to_string();
        self.metrics.set_aside.inc();
        tracing::error!(
            service = self.service, event = %row.event_id, key = row.key, topic = row.topic, reason,
            "the event cannot be published and is set aside; later events of its key go on, and `outbox requeue` puts it back"
        );
        (row, Some(Fate::Poison(reason)))
    }

    fn count_published(&self, row: &StoredRow) {
        let micros = u32::try_from((self.clock.now().as_microsecond() - row.created_at).max(0)).unwrap_or(u32::MAX);
        self.metrics.published.inc();
        self.metrics.publish_seconds.observe(f64::from(micros) / 1e6);
    }
}
