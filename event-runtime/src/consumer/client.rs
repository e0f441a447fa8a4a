//! Puts the parts of a consumer together: client settings, threads and channels.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    thread,
    time::Duration,
};

use rdkafka::{ClientConfig, error::KafkaError};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::{
    Consumer, ConsumerContext,
    attempt::Runner,
    commands::Commands,
    custody::Custody,
    dispatch::{Dispatcher, Work},
    ends::Ends,
    overrun::Overruns,
    poll::{self, ClientFactory, Poller, Pulse},
    progress::Progress,
    rebalance::{Membership, Rebalances},
    router::Router,
    watchdog::Watchdog,
};
use crate::{
    Database,
    config::{ConfigError, KafkaConfig},
    context::report_statistics,
    scheduler::{BreakerLimits, FloodLimits, Limits, Scheduler},
};

/// Batches of records on their way to the dispatcher. Few, for they are outside of the budget.
const BATCHES: usize = 4;
const REQUESTS: usize = 16;
/// librdkafka's default.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// What the builder collects beside handlers.
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) handler_timeout: Duration,
    pub(super) drain_deadline: Duration,
    pub(super) flood_limits: Option<FloodLimits>,
    pub(super) breaker: Option<BreakerLimits>,
    pub(super) stall_timeout: Duration,
    /// Where it is kept who has which partition.
    pub(super) database: Option<Database>,
    pub(super) batch: Batch,
}

/// How records share transactions.
pub(super) struct Batch {
    /// How many at most.
    pub(super) records: usize,
    /// Whether what comes in waits for a transaction that runs.
    pub(super) gathers: bool,
}

/// Why a consumer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client cannot be made.
    #[error("the Kafka consumer of group {group} cannot be configured")]
    Client {
        /// The group.
        group: &'static str,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The broker would take the partitions away before they are drained.
    #[error(
        "the drain deadline of group {group} is {deadline:?}; it must be less than half of max.poll.interval.ms \
         ({interval:?}): lower the one or raise the other"
    )]
    DrainDeadline {
        /// The group.
        group: &'static str,
        /// What was asked for.
        deadline: Duration,
        /// What it must fit into, twice.
        interval: Duration,
    },
    /// It handles nothing.
    #[error("the consumer of group {0} has no handlers")]
    NoHandlers(&'static str),
    /// The system has no more threads.
    #[error("the threads of group {group} cannot be started")]
    Thread {
        /// The group.
        group: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

pub(super) fn start(
    router: Router,
    topics: Vec<String>,
    settings: Settings,
    context: ConsumerContext,
) -> Result<Consumer, StartError> {
    let group = router.group;
    if topics.is_empty() {
        return Err(StartError::NoHandlers(group));
    }
    let config = client_config(&context.kafka, group, &settings.limits)?;
    check_drain_deadline(&config, group, settings.drain_deadline)?;
    let (incoming_sender, incoming) = mpsc::channel(BATCHES);
    let (control, requests) = mpsc::channel(REQUESTS);
    let (closing, closed) = watch::channel(false);
    let (commands, membership) = (Arc::new(Commands::default()), Arc::new(Membership::default()));
    let (pulse, ends) = (Arc::new(Pulse::new()), Arc::new(Ends::default()));

    let is_static = config.get("group.instance.id").is_some();
    let clients = ClientFactory {
        kafka: context.kafka.clone(),
        config,
        topics,
        context: Box::new({
            let (membership, metrics) = (membership.clone(), context.metrics.clone());
            let commands = commands.clone();
            move || Rebalances {
                group,
                drain_deadline: settings.drain_deadline,
                is_static,
                incoming: incoming_sender.clone(),
                commands: commands.clone(),
                membership: membership.clone(),
                metrics: metrics.clone(),
                committer: OnceLock::new(),
                complaints: Arc::default(),
                owned: Arc::default(),
                stranded: AtomicBool::default(),
            }
        }),
    };
    let thread = |source| StartError::Thread { group, source };
    let overruns = Overruns::start(group, context.metrics.clone()).map_err(thread)?;
    let first = clients.create().map_err(|source| StartError::Client { group, source })?;
    let batch = poll::Batch::within(&settings.limits);
    let poller = Poller { batch, clients, commands: commands.clone(), pulse: pulse.clone(), ends: ends.clone() };
    let span = tracing::Span::current();
    let poll = move || {
        span.in_scope(|| poller.run(first));
        closing.send_replace(true);
    };
    let spawned = thread::Builder::new().name(format!("{group}-poll")).spawn(poll);
    spawned.map_err(thread)?;

    let (tell_flood, flood) = watch::channel(None);
    let progress = Progress { group, ends, metrics: context.metrics.clone(), shown: HashSet::new(), flood: tell_flood };
    let (watchdog, stall) = Watchdog::new(group, context.kafka, settings.stall_timeout, commands.clone());
    let Batch { records, gathers } = settings.batch;
    let scheduler = Scheduler::new(settings.limits).batching(records, gathers);
    let scheduler = match settings.flood_limits {
        Some(limits) => scheduler.guarded(limits),
        None => scheduler,
    };
    let scheduler = match settings.breaker {
        Some(limits) => scheduler.breaking(limits),
        None => scheduler,
    };
    let runner = Runner {
        group,
        clock: context.clock,
        producer: context.producer,
        timeout: settings.handler_timeout,
        gauges: context.metrics.gauges(group),
        metrics: context.metrics,
        overruns: overruns.clone(),
    };
    let dispatcher = Dispatcher {
        router,
        runner: Arc::new(runner),
        commands,
        scheduler,
        progress,
        watchdog,
        membership: membership.clone(),
        custody: Custody::new(settings.database, group),
        work: Work::new(),
    };
    tokio::spawn(dispatcher.run(incoming, requests).in_current_span());
    Ok(Consumer { group, control, membership, pulse, closed, flood, stall, overruns })
}

/// The safe settings, where `-X` does not say otherwise.
fn client_config(kafka: &KafkaConfig, group: &str, limits: &Limits) -> Result<ClientConfig, ConfigError> {
    let mut config = kafka.client()?;
    let mut default = |name: &str, value: &str| {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    };
    default("group.id", group);
    default("auto.offset.reset", "earliest");
    default("isolation.level", "read_committed");
    default("queued.max.messages.kbytes", "16384");
    // With the default of a second, a fast consumer stalls whenever the local queue was full.
    default("fetch.queue.backoff.ms", "10");
    // A resumed partition is fetched once the broker has answered the fetch under way, and one that finds nothing is
    // answered after the longest wait: 500 ms a resume, seen where a partition at its budget had less left than librdkafka
    // reads ahead. So it reads ahead no more than a budget, and waits less where partitions are at their end.
    default("queued.min.messages", &limits.records.clamp(1, 100_000).to_string());
    default("fetch.wait.max.ms", "100");
    default("reconnect.backoff.ms", "50");
    default("reconnect.backoff.max.ms", "1000");
    if config.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
        // The broker decides in the new protocol; a client that sets these there cannot be made.
        let mut default = |name: &str, value: &str| {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        };
        default("partition.assignment.strategy", "cooperative-sticky");
        // How long a killed member's partitions wait for a new owner; librdkafka's own 45 s outlast an order's deadline.
        // Heartbeats come from a thread of librdkafka's, so neither a slow handler nor a drain can miss them.
        default("session.timeout.ms", "10000");
    }
    report_statistics(&mut config);
    // Not to be chosen: offsets are committed by what is handled.
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    Ok(config)
}

fn check_drain_deadline(config: &ClientConfig, group: &'static str, deadline: Duration) -> Result<(), StartError> {
    let milliseconds = config.get("max.poll.interval.ms").and_then(|value| value.parse().ok());
    let interval = milliseconds.map_or(MAX_POLL_INTERVAL, Duration::from_millis);
    if deadline * 2 >= interval {
        return Err(StartError::DrainDeadline { group, deadline, interval });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { concurrency: 1, records: 100, bytes: 1 << 20 };

    fn config(settings: &[(&str, &str)]) -> ClientConfig {
        let kafka =
            settings.iter().fold(KafkaConfig::new("127.0.0.1:9"), |kafka, (name, value)| kafka.set(name, value));
        client_config(&kafka, "notes-service", &LIMITS).unwrap()
    }

    /// What librdkafka makes of it.
    fn effective(config: &ClientConfig, name: &str) -> String {
        config.create_native_config().unwrap().get(name).unwrap()
    }

    #[test]
    fn a_group_begins_at_the_first_record_and_reads_what_is_committed() {
        let config = config(&[]);
        assert_eq!(config.get("auto.offset.reset"), Some("earliest"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(config.get("group.id"), Some("notes-service"));
    }

    #[test]
    fn no_setting_has_librdkafka_commit_or_store_offsets_by_itself() {
        let bold = [("enable.auto.commit", "true"), ("enable.auto.offset.store", "true"), ("fetch.wait.max.ms", "7")];
        for config in [config(&[]), config(&bold)] {
            for name in ["enable.auto.commit", "enable.auto.offset.store"] {
                assert_eq!((config.get(name), effective(&config, name).as_str()), (Some("false"), "false"), "{name}");
            }
        }
        assert_eq!(effective(&config(&bold), "fetch.wait.max.ms"), "7", "others are honoured");
    }

    #[test]
    fn what_else_the_command_line_says_is_honoured() {
        let chosen = [("auto.offset.reset", "latest"), ("isolation.level", "read_uncommitted"), ("group.id", "mine")];
        let config = config(&chosen);
        for (name, value) in chosen {
            assert_eq!(config.get(name), Some(value));
        }
    }

    #[test]
    fn in_the_new_group_protocol_nothing_is_set_that_the_broker_decides() {
        let config = config(&[("group.protocol", "consumer")]);
        assert_eq!((config.get("session.timeout.ms"), config.get("partition.assignment.strategy")), (None, None));
    }
}
