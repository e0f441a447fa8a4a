//! The whole service on an embedded broker.

use std::time::Duration;

use event_runtime::config::{KafkaConfig, ServiceConfig};
use order_service::Config;
use serde_json::{Value, json};
use shared_events::OrderId;
use test_support::{MockKafka, TempDatabase, eventually};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::bench;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker and a database, on which the service can be started more than once.
pub struct Place {
    pub kafka: MockKafka,
    database: TempDatabase,
    pub order_deadline: Duration,
}

pub struct Running {
    url: String,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Place {
    pub fn new(order_deadline: Duration) -> Place {
        Place { kafka: MockKafka::start(1), database: TempDatabase::new(), order_deadline }
    }

    pub fn config(&self) -> Config {
        let listen = "127.0.0.1:0".parse().unwrap();
        let service = ServiceConfig::new(self.kafka.config(), self.database.url()).listen(listen);
        Config { service, order_deadline: self.order_deadline }
    }

    pub fn kafka(&self) -> KafkaConfig {
        self.kafka.config()
    }

    /// A running service that has its partitions.
    pub async fn start(&self) -> Running {
        let running = self.begin().await;
        running.ready().await;
        running
    }

    /// A service in its first moments.
    pub async fn begin(&self) -> Running {
        let service = order_service::bind(self.config()).await.unwrap();
        let url = format!("http://{}", service.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(service.run(async { stopped.await.unwrap_or_default() }));
        Running { url, client: reqwest::Client::new(), stop, ended }
    }
}

impl Running {
    /// Waits until it has its partitions.
    pub async fn ready(&self) {
        eventually(PATIENCE, "readiness", async || {
            let response = self.get("/ready").await;
            if response.status().is_success() { Ok(()) } else { Err(response.text().await.unwrap()) }
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }

    pub async fn post(&self, body: String) -> reqwest::Response {
        self.post_with(body, &[]).await
    }

    pub async fn post_with(&self, body: String, headers: &[(&str, &str)]) -> reqwest::Response {
        let request = self.client.post(format!("{}/orders", self.url)).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.header("content-type", "application/json").send().await.unwrap()
    }

    pub async fn placed(&self) -> OrderId {
        self.placed_with(&[]).await
    }

    pub async fn placed_with(&self, headers: &[(&str, &str)]) -> OrderId {
        let response = self.post_with(bench::order("ada@example.org").to_string(), headers).await;
        assert_eq!(response.status(), 202);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        body["orderId"].as_str().unwrap().parse().unwrap()
    }

    pub async fn order(&self, id: OrderId) -> Value {
        let response = self.get(&format!("/orders/{id}")).await;
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// The order once `condition` holds of it.
    pub async fn order_when(&self, id: OrderId, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, what, async || {
            let order = self.order(id).await;
            if condition(&order) { Ok(order) } else { Err(order) }
        })
        .await
    }
}

/// The lines of `event` in the order's timeline.
pub fn lines<'a>(order: &'a Value, event: &str) -> Vec<&'a Value> {
    order["timeline"].as_array().unwrap().iter().filter(|line| line["event"] == event).collect()
}

/// Whether every line says where its event stands.
pub fn is_placed(order: &Value) -> bool {
    order["timeline"].as_array().unwrap().iter().all(|line| line["offset"] != json!(null))
}
