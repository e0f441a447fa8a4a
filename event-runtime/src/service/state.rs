use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Clock, Consumer, Database,
    consumer::{InFlight, NotReady},
    database::Dialect,
    http::{Operations, Problem},
    outbox,
    telemetry::metrics::Metrics,
};

/// How long a probe asks the database before it reports it as away.
const PROBE: Duration = Duration::from_secs(1);

/// What a running service tells about itself.
pub(super) struct State {
    name: &'static str,
    database: Database,
    clock: Clock,
    metrics: Metrics,
    phase: Mutex<Phase>,
    /// Whether the schema is there. Set once, long before the rest runs: orders are taken while Kafka is away.
    migrated: AtomicBool,
    consumers: OnceLock<Arc<[Consumer]>>,
}

/// How far the service has come.
#[derive(Clone)]
enum Phase {
    /// Waiting for this, in words.
    Starting(String),
    Running,
    Stopping,
}

impl State {
    pub(super) fn new(name: &'static str, database: Database, clock: Clock, metrics: Metrics) -> State {
        State {
            name,
            database,
            clock,
            metrics,
            phase: Mutex::new(Phase::Starting("starting".to_owned())),
            migrated: AtomicBool::new(false),
            consumers: OnceLock::new(),
        }
    }

    pub(super) fn waiting_for(&self, what: impl Into<String>) {
        *self.phase() = Phase::Starting(what.into());
    }

    /// From now on the service's own routes are served.
    pub(super) fn migrated(&self) {
        self.migrated.store(true, Ordering::Release);
    }

    /// From now on the parts are asked how they are.
    pub(super) fn running(&self, consumers: Arc<[Consumer]>) {
        // A service starts once, so it cannot be set already.
        self.consumers.set(consumers).ok();
        *self.phase() = Phase::Running;
    }

    pub(super) fn stopping(&self) {
        *self.phase() = Phase::Stopping;
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reasons(&self) -> Vec<String> {
        let phase = self.phase().clone();
        match phase {
            Phase::Starting(what) => vec![what],
            Phase::Stopping => vec!["the service is stopping".to_owned()],
            Phase::Running => {
                let database = self.database_away().await;
                self.unready_consumers().map(|reason| reason.to_string()).chain(database).collect()
            }
        }
    }

    pub(super) fn unready_consumers(&self) -> impl Iterator<Item = NotReady> {
        self.consumers().iter().filter_map(|consumer| consumer.ready().err())
    }

    fn consumers(&self) -> &[Consumer] {
        self.consumers.get().map_or(&[], |consumers| consumers)
    }

    /// SQLite is a file in this process's hands; asking for its one writer would only measure how busy it is.
    async fn database_away(&self) -> Option<String> {
        if self.database.dialect() == Dialect::Sqlite {
            return None;
        }
        match timeout(PROBE, self.database.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) | Err(_) => Some(format!("the database at {} does not answer", self.database.place())),
        }
    }

    async fn outbox(&self) -> Result<Value, Problem> {
        let depth = outbox::depth(&self.database, self.clock.now()).await?;
        let age = depth.oldest_age.map(|age| age.as_secs_f64());
        Ok(
            json!({ "rows": depth.rows, "oldestAgeSeconds": age, "delayed": depth.delayed, "setAside": depth.set_aside }),
        )
    }

    async fn in_flight(&self, key: &str) -> Vec<InFlight> {
        join_all(self.consumers().iter().map(|consumer| consumer.inspect(key))).await.into_iter().flatten().collect()
    }
}

impl Operations for State {
    fn not_ready(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(self.reasons())
    }

    fn before_schema(&self) -> Option<String> {
        if self.migrated.load(Ordering::Acquire) {
            return None;
        }
        Some(match &*self.phase() {
            Phase::Starting(what) => what.clone(),
            Phase::Running | Phase::Stopping => "it was stopped before its database was ready".to_owned(),
        })
    }

    fn inspect<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Value, Problem>> {
        Box::pin(async move {
            // Before the schema is there, nothing can wait in it.
            let outbox = match self.before_schema().is_some() {
                true => json!({ "rows": 0, "oldestAgeSeconds": null }),
                false => self.outbox().await?,
            };
            Ok(json!({ "service": self.name, "inFlight": self.in_flight(key).await, "outbox": outbox }))
        })
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
