//! Faults while they go on.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use event_runtime::{
    config::KafkaConfig,
    embedded::EmbeddedBroker,
    producer::Producer,
    reader::{Position, ReadError, Reader},
};
use eventctl::chaos::{duplicates::copy_of, gateway::FakeGateway, poison};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use shared_events::topics::{ORDERS, TOPICS};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Fault, Faults};
use crate::{Stack, stack::Kill};

/// From one pause of the brokers to the next.
const BETWEEN_PAUSES: Duration = Duration::from_secs(10);
/// How long the reader of what is to be copied waits for records before it looks whether to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Faults that go on until they are stopped.
pub struct Chaos {
    pub(super) faults: Faults,
    pub(super) done: Arc<Done>,
    pub(super) kills: Option<mpsc::Sender<Kill>>,
    broker: Arc<EmbeddedBroker>,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    // A thread that reads topics ends by no other means when this is dropped without a stop, and a process waits for it.
    _stops: DropGuard,
}

/// How often what was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) copies: AtomicU64,
    pub(super) poison: AtomicU64,
    pub(super) drops: AtomicU64,
    pub(super) pauses: AtomicU64,
    pub(super) crashes: AtomicU64,
}

impl Chaos {
    /// Begins with `faults` in a stack that is ready.
    ///
    /// # Errors
    /// When broker or gateway do not take one; the message names it.
    pub async fn begin(faults: &Faults, stack: &Stack) -> anyhow::Result<Chaos> {
        let broker = stack.broker().clone();
        let (shutdown, tasks) = (CancellationToken::new(), JoinSet::new());
        let _stops = shutdown.clone().drop_guard();
        let (faults, done, kills) = (faults.clone(), Arc::default(), stack.kills());
        let mut chaos = Chaos { faults, done, kills, broker, shutdown, tasks, _stops };
        chaos.set_gateway(stack.addresses().url("payment-gateway-fake")).await?;
        for fault in chaos.faults.0.clone() {
            chaos.begin_one(fault).await.with_context(|| format!("chaos: {}", fault.name()))?;
        }
        Ok(chaos)
    }

    /// What goes on.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The gateway takes all its faults at once.
    async fn set_gateway(&self, url: &str) -> anyhow::Result<()> {
        let mut wanted = Map::new();
        for fault in &self.faults.0 {
            match fault {
                Fault::GatewayFailures(rate) => drop(wanted.insert("failureRate".to_owned(), json!(rate))),
                Fault::Delays(delay) => {
                    drop(wanted.insert("delayMs".to_owned(), json!(u64::try_from(delay.as_millis())?)));
                }
                _ => {}
            }
        }
        if !wanted.is_empty() {
            let gateway = FakeGateway::find(url).await?;
            gateway.set(&gateway.with(Value::Object(wanted))).await?;
        }
        Ok(())
    }

    async fn begin_one(&mut self, fault: Fault) -> anyhow::Result<()> {
        let (broker, done) = (self.broker.clone(), self.done.clone());
        match fault {
            Fault::GatewayFailures(_) => {}
            // Waits for an order to be in the middle of: `crash`.
            Fault::Crash => ensure!(self.kills.is_some(), "payment-service is no process of its own"),
            Fault::Duplicates(every) => self.duplicate(every)?,
            Fault::Poison(number) => {
                let producer = Producer::new(&broker.config())?;
                for number in 0..number {
                    producer.send(poison::record(number, ORDERS.name, "poison")).await?;
                    done.poison.fetch_add(1, Ordering::Relaxed);
                }
            }
            Fault::Delays(delay) => broker.cluster().broker_round_trip_time(ALL, delay)?,
            Fault::DropConnection(every) => self.go_on(async move {
                loop {
                    // A broker that goes down breaks every connection that it has.
                    broker.cluster().broker_down(ALL)?;
                    broker.cluster().broker_up(ALL)?;
                    done.drops.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("chaos: the brokers dropped their connections");
                    sleep(every).await;
                }
            }),
            Fault::BrokerPause(pause) => self.go_on(async move {
                loop {
                    tracing::warn!("chaos: the brokers are away for {pause:?}");
                    broker.cluster().broker_down(ALL)?;
                    sleep(pause).await;
                    broker.cluster().broker_up(ALL)?;
                    done.pauses.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("chaos: the brokers are back");
                    sleep(BETWEEN_PAUSES - pause).await;
                }
            }),
        }
        Ok(())
    }

    /// Does this until chaos is stopped.
    fn go_on(&mut self, fault: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(fault).await.unwrap_or(Ok(())) });
    }

    /// Reads every event as it comes, and writes each `every`-th once more.
    fn duplicate(&mut self, every: u64) -> anyhow::Result<()> {
        let kafka = self.broker.config();
        let producer = Producer::new(&kafka)?;
        let (shutdown, done) = (self.shutdown.clone(), self.done.clone());
        let runtime = tokio::runtime::Handle::current();
        self.tasks.spawn_blocking(move || {
            let mut events = 0_u64;
            read(&kafka, &shutdown, |record| {
                let Some(copy) = copy_of(record) else { return };
                events += 1;
                if !events.is_multiple_of(every) {
                    return;
                }
                match runtime.block_on(producer.send(copy)) {
                    Ok(_) => drop(done.copies.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => tracing::warn!(%error, "chaos: an event was perhaps not delivered twice"),
                }
            })
        });
        Ok(())
    }

    /// Ends all faults, and waits until they have ended: what follows finds brokers that answer.
    ///
    /// # Errors
    /// When a fault ended by itself.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            result = result.and(ended.map_err(anyhow::Error::from).flatten());
        }
        self.broker.cluster().broker_up(ALL)?;
        self.broker.cluster().broker_round_trip_time(ALL, Duration::ZERO)?;
        result.context("chaos")
    }
}

/// How the mock cluster calls all its brokers.
const ALL: i32 = -1;

/// Hands every record that comes on the events' topics to `seen`.
fn read(
    kafka: &KafkaConfig,
    shutdown: &CancellationToken,
    mut seen: impl FnMut(&event_runtime::Record),
) -> anyhow::Result<()> {
    let topics: Vec<String> = TOPICS.iter().map(|topic| topic.name.to_owned()).collect();
    // Brokers that are away at this moment are a fault of their own.
    let mut reader = loop {
        match Reader::open(kafka, &topics, Position::Start, Timestamp::now()) {
            Ok(reader) => break reader,
            Err(_) if shutdown.is_cancelled() => return Ok(()),
            Err(ReadError::Unreachable { .. } | ReadError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    };
    while !shutdown.is_cancelled() {
        match reader.next(LOOK_EVERY) {
            Ok(Some(record)) => seen(&record),
            Ok(None) | Err(ReadError::Disturbed(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
