//! What runs once a service is ready, and how it ends.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{join_all, select_all},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::housekeeping;
use crate::{Clock, Consumer, Database, outbox::Relay, producer::Producer};

/// The parts that run. Filled during the start, so that a start that is given up half-way can be undone.
#[derive(Default)]
pub(super) struct Running {
    producer: Option<Producer>,
    relay: Option<RunningRelay>,
    consumers: Option<Arc<[Consumer]>>,
    /// Cancelled when this goes.
    housekeeping: Option<DropGuard>,
}

struct RunningRelay {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    pub(super) fn producer(&mut self, producer: Producer) {
        self.producer = Some(producer);
    }

    pub(super) fn relay(&mut self, relay: Relay) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(relay.run(stop.clone()).in_current_span());
        self.relay = Some(RunningRelay { task, stop });
    }

    pub(super) fn housekeeping(&mut self, database: Database, clock: Clock, retention: Duration) {
        let stop = CancellationToken::new();
        let work = housekeeping::run(database, clock, retention, stop.clone());
        tokio::spawn(work.in_current_span());
        self.housekeeping = Some(stop.drop_guard());
    }

    pub(super) fn consumers(&mut self, consumers: Arc<[Consumer]>) {
        self.consumers = Some(consumers);
    }

    /// Resolves when a part ends that should not: a service that only looks alive is worse than one that restarts.
    pub(super) async fn until_failure(&mut self) -> anyhow::Result<()> {
        let relay = async {
            match &mut self.relay {
                Some(relay) => (&mut relay.task).await,
                None => std::future::pending().await,
            }
        };
        let consumers = self.consumers.iter().flat_map(|consumers| consumers.iter());
        let stopped = consumers.map(|consumer| {
            async {
                consumer.stopped().await;
                consumer.group()
            }
            .boxed()
        });
        // `select_all` of nothing panics.
        let stopped = select_all(stopped.chain([std::future::pending().boxed()]));
        tokio::select! {
            ended = relay => match ended {
                Ok(()) => anyhow::bail!("the relay ended by itself"),
                Err(error) => anyhow::bail!("the relay failed: {error}"),
            },
            (group, _, _) = stopped => anyhow::bail!("the consumer of group {group} ended by itself"),
        }
    }

    /// Consumers first, for their handlers still write to the outbox; then the relay, then what the producer holds.
    pub(super) async fn stop(self, deadline: Instant) {
        if let Some(consumers) = &self.consumers {
            stop_consumers(consumers, deadline).await;
        }
        if let Some(mut relay) = self.relay {
            relay.stop.cancel();
            // What it does not publish now, the next relay does.
            if !relay.task.is_finished() && timeout_at(deadline, &mut relay.task).await.is_err() {
                tracing::warn!("the relay did not finish before the shutdown deadline; the outbox keeps its rows");
                relay.task.abort();
            }
        }
        if let Some(producer) = self.producer {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() && producer.flush(left).await.is_err() {
                tracing::warn!("some records were not acknowledged before the shutdown deadline");
            }
        }
    }
}

/// They go on polling while their handlers finish, so none of them loses its partitions meanwhile.
async fn stop_consumers(consumers: &[Consumer], deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    // A fifth is for committing and leaving the group, once handlers have had theirs.
    let handlers = left.mul_f64(0.8);
    let ended = timeout_at(deadline, join_all(consumers.iter().map(|consumer| consumer.shutdown(handlers)))).await;
    match ended {
        Ok(results) => results.iter().filter_map(|result| result.as_ref().err()).for_each(|error| {
            tracing::warn!(%error, "a consumer was cut off");
        }),
        Err(_) => tracing::warn!("consumers were cut off at the shutdown deadline; what they had in hand is repeated"),
    }
}
