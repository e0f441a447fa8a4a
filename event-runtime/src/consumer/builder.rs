//! Collects handlers, and starts them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shared_events::{Event, topics::dead_letter_topic};

use super::{
    Consumer, ConsumerContext, StartError,
    client::{Batch, Settings},
    kinds::{Effect, Handler, OneByOne, Plain, Raw, Transactional},
    router::Router,
};
use crate::{
    BatchHandler, Database, EffectHandler, EventType, Events, PlainHandler, RawHandler, TransactionalHandler,
    scheduler::{BreakerLimits, FloodLimits, Limits},
    topics::TopicSpec,
};

/// Collects the handlers of one consumer group. The topics follow from the handlers' events.
pub struct ConsumerBuilder {
    router: Router,
    topics: BTreeSet<String>,
    dead_letter_topics: BTreeSet<String>,
    specs: Vec<TopicSpec>,
    /// Topic and type of what is handled.
    events: Vec<(&'static str, &'static str)>,
    settings: Settings,
    chose_concurrency: bool,
    /// The database whose transactions records share: that of the first transactional handler.
    batches_in: Option<Database>,
    /// Whether every handler runs in transactions of that database.
    only_transactional: bool,
}

impl ConsumerBuilder {
    /// A consumer in `group`. The group name is also the service name its handlers publish under.
    pub fn new(group: &'static str) -> ConsumerBuilder {
        let limits = Limits { concurrency: 32, records: 10_000, bytes: 32 << 20 };
        let handler_timeout = Duration::from_secs(30);
        ConsumerBuilder {
            router: Router::new(group),
            topics: BTreeSet::new(),
            dead_letter_topics: BTreeSet::new(),
            specs: Vec::new(),
            events: Vec::new(),
            settings: Settings {
                limits,
                handler_timeout,
                drain_deadline: Duration::from_secs(10),
                flood_limits: Some(FloodLimits::default()),
                breaker: Some(BreakerLimits::default()),
                stall_timeout: Duration::from_secs(60),
                database: None,
                batch: Batch { records: 256, gathers: false },
            },
            chose_concurrency: false,
            batches_in: None,
            only_transactional: true,
        }
    }

    /// Handles `H::Event` in a transaction of `database`.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn transactional<H: TransactionalHandler>(self, database: &Database, handler: H) -> Self {
        self.in_transactions(database, OneByOne(handler), false)
    }

    /// Handles what is ready of `H::Event` together, in a transaction of `database`.
    ///
    /// # Panics
    /// When one of its event types has a handler already.
    pub fn batched<H: BatchHandler>(self, database: &Database, handler: H) -> Self {
        self.in_transactions(database, handler, true)
    }

    /// Handles `H::Event` with an effect outside `database`.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn effect<H: EffectHandler>(self, database: &Database, handler: H) -> Self {
        self.on(database).event::<H::Event>(Effect { database: database.clone(), handler })
    }

    /// Handles `H::Event` without a database.
    ///
    /// # Panics
    /// When the event type has a handler already.
    pub fn plain<H: PlainHandler>(self, handler: H) -> Self {
        self.event::<H::Event>(Plain(handler))
    }

    /// Handles every record of `topics` as it is, such as dead letters.
    ///
    /// # Panics
    /// When one of the topics has a raw handler already.
    pub fn raw<H: RawHandler>(mut self, topics: Vec<String>, handler: H) -> Self {
        let handler: Arc<dyn Handler> = Arc::new(Raw(handler));
        self.only_transactional = false;
        assert!(self.router.add_raw(&topics, &handler), "one of the topics {topics:?} has a raw handler already");
        self.topics.extend(topics);
        self
    }

    /// How many attempts run at the same time; 32 by default. Records that share a transaction count as one. Where all
    /// handlers are transactional, no more run than the database has connections for: what comes in meanwhile is better
    /// off in the next batch than in a queue for a connection.
    pub fn concurrency(mut self, attempts: usize) -> Self {
        self.settings.limits.concurrency = attempts.max(1);
        self.chose_concurrency = true;
        self
    }

    /// The same, for a consumer whose author has not chosen: a limit in the code has its reason there.
    pub(crate) fn default_concurrency(self, attempts: usize) -> Self {
        if self.chose_concurrency { self } else { self.concurrency(attempts) }
    }

    /// How many records of transactional handlers may share a transaction; 256 by default, and 1 gives each its own. A
    /// batch is what is ready when a transaction begins: it never waits to be filled, and when idle it is one record. One
    /// that fails undoes the others, which then run alone, each as if there had been no batch.
    pub fn batch(mut self, records: usize) -> Self {
        self.settings.batch.records = records.clamp(1, 1000);
        self
    }

    /// How many records, and bytes of them, are kept in memory; 10,000 and 32 MiB by default. A partition that has used
    /// up its share is paused.
    pub fn budget(mut self, records: usize, bytes: usize) -> Self {
        self.settings.limits = Limits { records, bytes, ..self.settings.limits };
        self
    }

    /// How long an attempt may take before it counts as failed; 30 s by default. Handlers are told by
    /// [`Delivery::deadline`](crate::Delivery::deadline).
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handler_timeout = timeout;
        self
    }

    /// How long a revoke waits for what is in flight; 10 s by default, and less than half of `max.poll.interval.ms`.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.settings.drain_deadline = deadline;
        self
    }

    /// From how many dead letters on the consumer stops handling for a while, or `None`: then every record that cannot be
    /// handled goes to its dead-letter topic, however many. See [`FloodLimits`].
    pub fn flood_limits(mut self, limits: Option<FloodLimits>) -> Self {
        self.settings.flood_limits = limits;
        self
    }

    /// When failures of records are taken for an outage that their handler has not recognised, or `None`: then a record
    /// that answers [`Retry`](crate::HandlerError::Retry) uses up its attempts, however many others do the same. By default
    /// ten keys of one handler whose latest attempts failed, panicked or took too long, if they are 80 % of the keys that
    /// were tried last. What follows is what follows [`Unavailable`](crate::HandlerError::Unavailable): the handler's
    /// records wait, one at a time probes, and no attempt is used up until one is handled. See [`BreakerLimits`].
    pub fn breaker(mut self, limits: Option<BreakerLimits>) -> Self {
        self.settings.breaker = limits;
        self
    }

    /// How long nothing may come from a partition that has not ended before the Kafka client is replaced; 60 s by default.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.settings.stall_timeout = timeout;
        self
    }

    /// The consumer group.
    pub fn group(&self) -> &'static str {
        self.router.group
    }

    /// What it subscribes to.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    /// Where it puts what it cannot handle.
    pub fn dead_letter_topics(&self) -> impl Iterator<Item = &str> {
        self.dead_letter_topics.iter().map(String::as_str)
    }

    /// The topics its events are on, and where their dead letters go, as they are created.
    pub fn topic_specs(&self) -> &[TopicSpec] {
        &self.specs
    }

    /// Joins the group and begins to handle. Call it inside a tokio runtime. Kafka need not be reachable.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn start(mut self, context: ConsumerContext) -> Result<Consumer, StartError> {
        if let Some(database) = self.batches_in.as_ref().filter(|_| self.only_transactional) {
            let limits = &mut self.settings.limits;
            limits.concurrency = limits.concurrency.min(database.transactions_at_once());
            self.settings.batch.gathers = true;
        }
        context.metrics.begin(self.router.group, &self.events);
        let topics = self.topics.into_iter().collect();
        super::client::start(self.router, topics, self.settings, context)
    }

    fn in_transactions<H: BatchHandler>(mut self, database: &Database, handler: H, takes_several: bool) -> Self {
        let shares = self.batches_in.get_or_insert_with(|| database.clone()).is_same_as(database);
        self.only_transactional &= shares;
        let handler = Transactional { database: database.clone(), handler, shares, takes_several };
        self.on(database).push::<H::Event>(handler)
    }

    fn on(mut self, database: &Database) -> Self {
        self.settings.database.get_or_insert_with(|| database.clone());
        self
    }

    /// A handler that shares no transaction.
    fn event<E: Event>(mut self, handler: impl Handler + 'static) -> Self {
        self.only_transactional = false;
        self.push::<E>(handler)
    }

    fn push<E: Events>(mut self, handler: impl Handler + 'static) -> Self {
        let (types, group) = (E::types(), self.router.group);
        if let Some(taken) = self.router.add(&types, &(Arc::new(handler) as Arc<dyn Handler>)) {
            panic!("{taken} has a handler already");
        }
        for EventType { name, topic } in types {
            self.specs.extend([topic.into(), TopicSpec::dead_letters(topic, group)]);
            self.events.push((topic.name, name));
            self.topics.insert(topic.name.to_owned());
            self.dead_letter_topics.insert(dead_letter_topic(topic.name, group));
        }
        self
    }
}
