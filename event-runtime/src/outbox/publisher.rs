//! Sends one row until Kafka has it, or never will, or this relay may no longer send it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};
use tokio::time::{sleep, timeout};

use super::{
    Metrics, Published,
    outage::Outage,
    row::{StoredRow, age},
    share::Share,
    table::Fate,
    waiting::Waiting,
};
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
    missing: Mutex<Missing>,
}

/// Topics that a row has waited for in vain, and when it gave up. The rows behind it need not all wait as long.
#[derive(Default)]
struct Missing(HashMap<String, Instant>);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The producer gives up by itself after 30 s (`message.timeout.ms`), so one that says nothing for twice as long never will.
/// Where that is set to more, a record is handed over again while the first one is on its way still: of one key only one row
/// is, so that this repeats it and puts nothing out of order.
const UNANSWERED: Duration = Duration::from_secs(60);

impl Missing {
    /// Whether a row that has waited for `topic` since then is to give up `now`.
    fn gives_up(&mut self, topic: &str, since: Instant, patience: Duration, now: Instant) -> bool {
        if now - since >= patience {
            self.0.insert(topic.to_owned(), now);
            return true;
        }
        self.0.get(topic).is_some_and(|given_up| now - *given_up < patience)
    }
}

/// Between two attempts: longer each time, up to a limit.
fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

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
            backoff = longer(backoff);
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
        missing.gives_up(topic, since, self.unknown_topic_patience, Instant::now())
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
        self.metrics.published.inc();
        self.metrics.publish_seconds.observe(age(row.created_at, self.clock.now()).as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_behind_one_that_gave_up_on_their_topic_need_not_wait_as_long() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut missing = Missing::default();
        assert!(!missing.gives_up("t", at(0), PATIENCE, at(59)));
        assert!(missing.gives_up("t", at(0), PATIENCE, at(60)));
        assert!(missing.gives_up("t", at(61), PATIENCE, at(62)));
        assert!(!missing.gives_up("other", at(61), PATIENCE, at(62)));
        assert!(missing.gives_up("t", at(61), PATIENCE, at(119)));
        assert!(!missing.gives_up("t", at(61), PATIENCE, at(120)), "it may be there by now");
    }

    #[test]
    fn the_pause_between_attempts_becomes_longer_up_to_a_limit() {
        let pauses = std::iter::successors(Some(Duration::from_secs(1)), |pause| Some(longer(*pause)));
        let pauses: Vec<u64> = pauses.map(|pause| pause.as_secs()).take(4).collect();
        assert_eq!(pauses, [1, 2, 4, 5]);
    }
}
