//! From nothing to ready: everything that may be away is waited for.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shared_events::Topic;
use tokio::time::Instant;

use super::{running::Running, state::State};
use crate::{
    Clock, Consumer, ConsumerBuilder, ConsumerContext, Database, Migration,
    config::ServiceConfig,
    consumer::ConsumerMetrics,
    database::MigrateError,
    error::{Chain, is_unavailable},
    http::Operations as _,
    outbox::{self, OnPublished, Relay},
    producer::Producer,
    topics::{self, TopicSpec},
};

/// Between two attempts, and so between two lines in the log.
const PAUSE: Duration = Duration::from_secs(3);

pub(super) struct Start<'a> {
    pub(super) name: &'static str,
    pub(super) config: &'a ServiceConfig,
    pub(super) database: &'a Database,
    pub(super) producer: Producer,
    pub(super) clock: Clock,
    pub(super) state: &'a Arc<State>,
}

/// What is started.
pub(super) struct Parts {
    pub(super) consumers: Vec<ConsumerBuilder>,
    pub(super) topics: &'static [Topic],
    pub(super) migrations: &'static [Migration],
    pub(super) on_published: Option<Arc<dyn OnPublished>>,
}

impl Start<'_> {
    /// Everything in its order. What runs already is in `running` should this be dropped half-way.
    pub(super) async fn run(&self, parts: Parts, running: &mut Running) -> anyhow::Result<()> {
        let began = Instant::now();
        self.migrate(parts.migrations).await?;
        self.state.migrated();
        let wanted = wanted(parts.topics, &parts.consumers);
        self.topics(&wanted).await?;

        self.state.waiting_for("starting the relay and the consumers");
        let (database, producer) = (self.database.clone(), self.producer.clone());
        running.producer(producer.clone());
        let relay = Relay::new(database, producer, self.name, parts.on_published, self.clock.clone());
        running.relay(relay.with_metrics(outbox::Metrics::register(self.state.metrics())));
        let retention = wanted.iter().map(|topic| topic.retention).max().unwrap_or_default();
        running.housekeeping(self.database.clone(), self.clock.clone(), retention);
        let consumers = self.consumers(parts.consumers)?;
        running.consumers(consumers.clone());
        self.state.running(consumers);
        self.assignment().await;
        tracing::info!(milliseconds = began.elapsed().as_millis() as u64, "ready");
        Ok(())
    }

    fn consumers(&self, builders: Vec<ConsumerBuilder>) -> anyhow::Result<Arc<[Consumer]>> {
        let metrics = ConsumerMetrics::default();
        self.state.metrics().with_registry(|registry| metrics.register(registry));
        builders
            .into_iter()
            .map(|builder| {
                let builder = match self.config.consumer_concurrency {
                    Some(attempts) => builder.default_concurrency(attempts),
                    None => builder,
                };
                let context = ConsumerContext {
                    kafka: self.config.kafka.clone(),
                    producer: self.producer.clone(),
                    clock: self.clock.clone(),
                    metrics: metrics.clone(),
                };
                Ok(builder.start(context)?)
            })
            .collect()
    }

    /// Waits until every consumer has its partitions; `/ready` says so meanwhile.
    async fn assignment(&self) {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while self.state.unready_consumers().next().is_some() {
            looks.tick().await;
        }
    }

    async fn migrate(&self, migrations: &[Migration]) -> anyhow::Result<()> {
        let place = self.database.place();
        self.state.waiting_for(format!("waiting for the database at {place}"));
        loop {
            self.database.wait_until_reachable().await?;
            match self.database.migrate(migrations).await {
                // It went away again in between.
                Err(MigrateError::Database(source) | MigrateError::Step { source, .. }) if is_unavailable(&source) => {
                    tracing::warn!(database = place, error = %Chain(&source), "waiting for the database; ready when it comes");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome.with_context(|| format!("the database at {place} cannot be used")),
            }
        }
    }

    async fn topics(&self, wanted: &[TopicSpec]) -> anyhow::Result<()> {
        let brokers = &self.config.kafka.brokers;
        self.state.waiting_for(format!("waiting for Kafka at {brokers}"));
        let mut waited = false;
        loop {
            let began = Instant::now();
            match topics::ensure(&self.config.kafka, wanted).await {
                Ok(created) => {
                    if waited {
                        tracing::info!(brokers, "Kafka answers");
                    }
                    if !created.is_empty() {
                        tracing::info!(topics = created.join(","), "created topics");
                    }
                    return Ok(());
                }
                Err(error) if error.may_pass() => {
                    waited = true;
                    tracing::warn!(brokers, error = %Chain(&error), "waiting for Kafka; ready when it comes");
                    tokio::time::sleep_until(began + PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What the service names, because it may be the first one to start and say something; and what its own consumers read
/// and write.
fn wanted(topics: &[Topic], consumers: &[ConsumerBuilder]) -> Vec<TopicSpec> {
    let own = consumers.iter().flat_map(|consumer| consumer.topic_specs().to_vec());
    let mut wanted: Vec<TopicSpec> = topics.iter().copied().map(TopicSpec::from).collect();
    for spec in own {
        if !wanted.iter().any(|known| known.name == spec.name) {
            wanted.push(spec);
        }
    }
    wanted
}
