//! Where a workload is measured: the broker, and what was made there and has to go.

use std::{collections::BTreeSet, io::IsTerminal as _, sync::Mutex, time::Duration};

use anyhow::{Context, bail, ensure};
use event_runtime::{
    Clock, Consumer, ConsumerBuilder, ConsumerContext,
    config::KafkaConfig,
    consumer::ConsumerMetrics,
    embedded::EmbeddedBroker,
    producer::Producer,
    topics::{TopicSpec, ensure as ensure_topics},
};
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use uuid::Uuid;

use crate::{databases::Databases, measure::Meter};

/// How long nothing may happen before a workload counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(20);

/// The broker of a run. What is made through it is removed by [`Site::clear`].
pub struct Site {
    pub kafka: KafkaConfig,
    pub rounds: u32,
    pub meter: Meter,
    embedded: Option<EmbeddedBroker>,
    databases: Databases,
    /// Part of the names of groups.
    run: String,
    progress: ProgressBar,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    topics: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Site {
    pub fn new(
        kafka: KafkaConfig,
        embedded: Option<EmbeddedBroker>,
        postgres: Option<String>,
        rounds: u32,
    ) -> anyhow::Result<Site> {
        let progress = match std::io::stderr().is_terminal() {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
        progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        progress.enable_steady_tick(Duration::from_millis(500));
        let run = Uuid::now_v7().simple().to_string();
        Ok(Site {
            kafka,
            rounds,
            databases: Databases::new(postgres, &run)?,
            meter: Meter::new(std::env::var("KAFKA_DIR").ok().as_deref()),
            embedded,
            run,
            progress,
            made: Mutex::default(),
        })
    }

    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Announces how many steps there are going to be.
    pub fn steps(&self, steps: u64) {
        self.progress.reset();
        self.progress.set_length(steps);
    }

    /// Says what is done now.
    pub fn step(&self, what: &str) {
        self.progress.set_message(what.to_owned());
    }

    pub fn step_done(&self) {
        self.progress.inc(1);
    }

    /// Makes topics, which must not be there yet: records of somebody else would be measured, and removed. Their names are
    /// the same in each run, since an event type has its topic in its type.
    pub async fn make_topics(&self, specs: &[TopicSpec]) -> anyhow::Result<()> {
        if let Some(broker) = &self.embedded {
            for spec in specs {
                broker.create_topic(&spec.name, spec.partitions)?;
            }
            return Ok(());
        }
        let created = ensure_topics(&self.kafka, specs).await?;
        self.lock().topics.extend(created.iter().cloned());
        let known = specs.iter().find(|spec| !created.contains(&spec.name));
        if let Some(TopicSpec { name, .. }) = known {
            bail!(
                "topic {name} is there already: another run is under way, or was killed and you may delete the topic"
            );
        }
        Ok(())
    }

    /// Removes a topic before the run ends, and so makes room for another of the same name.
    pub async fn remove_topic(&self, name: &str) -> anyhow::Result<()> {
        if self.lock().topics.remove(name) {
            self.delete_topics(&[name.to_owned()]).await?;
        }
        Ok(())
    }

    /// A name for a group that nobody has had.
    pub fn new_group(&self) -> &'static str {
        let mut made = self.lock();
        let name = format!("benchmark-{}-{}", self.run, made.groups.len());
        made.groups.insert(name.clone());
        // The runtime names its groups in the code; this is a few of them a run.
        name.leak()
    }

    /// Has a group removed that was not named here.
    pub fn removes_group(&self, name: &str) {
        self.lock().groups.insert(name.to_owned());
    }

    /// Says where databases are made: of this server, and in files.
    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// A client of librdkafka that reads from the beginning in `group`, tuned as far as settings go.
    pub fn hand_written(&self, group: &str) -> anyhow::Result<ClientConfig> {
        let mut config = self.kafka.client()?;
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // The default of a second stalls a fast consumer whenever its queue is full.
            .set("fetch.queue.backoff.ms", "10");
        Ok(config)
    }

    /// A consumer of the runtime.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(&self, builder: ConsumerBuilder, metrics: &ConsumerMetrics) -> anyhow::Result<Consumer> {
        let producer = Producer::new(&self.kafka)?;
        let context =
            ConsumerContext { kafka: self.kafka.clone(), producer, clock: Clock::system(), metrics: metrics.clone() };
        Ok(builder.start(context)?)
    }

    /// Removes topics, groups and databases.
    ///
    /// # Errors
    /// When some could not be removed; says which.
    pub async fn clear(&self) -> anyhow::Result<()> {
        self.progress.finish_and_clear();
        let Made { topics, groups } = std::mem::take(&mut *self.lock());
        let dropped = self.databases.clear().await;
        if self.embedded.is_some() {
            return dropped;
        }
        let topics: Vec<String> = topics.into_iter().collect();
        let cleared = self.delete_topics(&topics).await;
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        if !groups.is_empty() {
            // Groups that were never joined are unknown, and those that stay expire.
            let deleted = self.admin()?.delete_groups(&groups, &options()).await;
            deleted.inspect_err(|error| tracing::debug!(%error, "groups were not deleted")).ok();
        }
        cleared.and(dropped)
    }

    async fn delete_topics(&self, topics: &[String]) -> anyhow::Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let deleted = self.admin()?.delete_topics(&names, &options()).await;
        let deleted = deleted.with_context(|| format!("these topics are left: {names:?}"))?;
        let left: Vec<_> = deleted.into_iter().filter_map(Result::err).collect();
        ensure!(left.is_empty(), "these topics are left: {left:?}");
        Ok(())
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.kafka.client()?.create()?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().expect("nobody panics while holding it")
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn topics_that_are_there_are_not_taken_over() {
        let broker = EmbeddedBroker::start(1).unwrap();
        broker.create_topic("benchmark.somebodys", 1).unwrap();
        let site = Site::new(broker.config(), None, None, 1).unwrap();
        let spec = TopicSpec { name: "benchmark.somebodys".to_owned(), partitions: 1, retention: TIMEOUT };
        let refused = site.make_topics(&[spec]).await.unwrap_err().to_string();
        assert!(refused.contains("benchmark.somebodys is there already"), "{refused}");
        assert!(site.lock().topics.is_empty(), "it would be deleted");
    }

    #[test]
    fn no_two_groups_have_one_name() {
        let site = Site::new(KafkaConfig::new("127.0.0.1:1"), None, None, 1).unwrap();
        assert_ne!(site.new_group(), site.new_group());
    }
}
