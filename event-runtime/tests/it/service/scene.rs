//! A service that answers a ping with a pong, and what it needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::post};
use event_runtime::{
    ConsumerBuilder, Database, Delivery, HandlerError, Migration, Outbox, Service, TransactionalHandler, Tx,
    config::{KafkaConfig, ServiceConfig},
    http::{Correlation, Json, Problem},
    service::App,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_events::{Event, Topic};
use test_support::{MockKafka, TempDatabase, eventually};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub const SERVICE: &str = "ping-service";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    pub key: String,
}

impl Event for Ping {
    const TYPE: &'static str = "ping";
    const TOPIC: Topic = Topic { name: "pings", partitions: 2, retention: DAY };

    fn key(&self) -> String {
        self.key.clone()
    }
}

impl Event for Pong {
    const TYPE: &'static str = "pong";
    const TOPIC: Topic = Topic { name: "pongs", partitions: 1, retention: DAY };

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// Handlers wait while it is closed.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    fn new() -> Gate {
        Gate(Arc::new(watch::Sender::new(true)))
    }

    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

struct Answer(Gate);

impl TransactionalHandler for Answer {
    type Event = Ping;

    async fn handle(&self, tx: &mut Tx, outbox: &mut Outbox, delivery: &Delivery<Ping>) -> Result<(), HandlerError> {
        self.0.pass().await;
        let key = delivery.event.key.clone();
        sqlx::query("INSERT INTO answered (ping) VALUES ($1)").bind(&key).execute(tx.conn()).await?;
        outbox.publish(&Pong { key })?;
        Ok(())
    }
}

const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "answered pings", sql: "CREATE TABLE answered (ping TEXT NOT NULL);" }];

pub struct Scene {
    pub kafka: MockKafka,
    pub gate: Gate,
    pub config: ServiceConfig,
    _folder: TempDatabase,
}

impl Scene {
    pub fn new() -> Scene {
        let kafka = MockKafka::start(1);
        for (topic, partitions) in [("pings", 2), ("pongs", 1), ("pings.ping-service.dlt", 2)] {
            kafka.create(topic, partitions);
        }
        let folder = TempDatabase::new();
        let config = service_config(kafka.config(), &folder.url());
        Scene { kafka, gate: Gate::new(), config, _folder: folder }
    }

    pub async fn start(&self) -> Running {
        self.start_with(Router::new()).await
    }

    pub async fn start_with(&self, routes: Router) -> Running {
        start(self.config.clone(), self.gate.clone(), routes).await
    }

    /// The pings that were answered, as the database has them.
    pub async fn answered(&self) -> Vec<String> {
        let database = Database::connect_lazy(&self.config.database_url).unwrap();
        sqlx::query_scalar("SELECT ping FROM answered ORDER BY ping").fetch_all(database.pool()).await.unwrap()
    }
}

pub fn service_config(kafka: KafkaConfig, database_url: &str) -> ServiceConfig {
    ServiceConfig::new(kafka, database_url).listen(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A service that waits for brokers that never come: enough to ask its HTTP.
pub async fn http_only(routes: Router, change: impl FnOnce(&mut ServiceConfig)) -> Running {
    let folder = TempDatabase::new();
    let mut config = service_config(KafkaConfig::new("127.0.0.1:1"), &folder.url());
    change(&mut config);
    let mut running = start(config, Gate::new(), routes).await;
    running.folder = Some(folder);
    running
}

async fn start(config: ServiceConfig, gate: Gate, routes: Router) -> Running {
    let builder = Service::bind(SERVICE, 0, config).await.unwrap();
    let database = builder.database().clone();
    let pings = post(async move |Correlation(correlation), Json(ping): Json<Ping>| {
        let mut outbox = Outbox::root(SERVICE, correlation, Timestamp::now());
        outbox.publish(&ping)?;
        database.commit(database.begin().await?, outbox).await?;
        Ok::<_, Problem>(StatusCode::ACCEPTED)
    });
    let service = builder_app(builder, gate, routes.route("/pings", pings));
    let address = service.address();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(service.run(shutdown.clone().cancelled_owned()));
    Running { address, shutdown, task, folder: None }
}

fn builder_app(builder: event_runtime::service::ServiceBuilder, gate: Gate, routes: Router) -> Service {
    let consumer = ConsumerBuilder::new(SERVICE).transactional(builder.database(), Answer(gate));
    builder.build(App { routes, consumers: vec![consumer], topics: &[], migrations: MIGRATIONS, on_published: None })
}

pub struct Running {
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<anyhow::Result<()>>,
    folder: Option<TempDatabase>,
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    pub async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(Duration::from_secs(40), self.task).await.expect("the service ends").unwrap()
    }
}

pub async fn get(url: &str) -> (u16, String) {
    let response = reqwest::get(url).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

pub async fn get_json(url: &str) -> Value {
    serde_json::from_str(&get(url).await.1).unwrap()
}

pub async fn ready(service: &Running) {
    eventually(Duration::from_secs(30), "ready service", async || match get(&service.url("/ready")).await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;
}
