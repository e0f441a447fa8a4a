use std::{net::SocketAddr, path::Path, time::Duration};

use payment_gateway_fake::Config;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

/// A gateway on a port of its own, stopped by [`Running::stop`].
pub struct Running {
    url: String,
    client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

pub fn config() -> Config {
    Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() }
}

pub fn kept_in(ledger: &Path) -> Config {
    Config { ledger: Some(ledger.to_owned()), ..config() }
}

pub async fn start(config: Config) -> Running {
    let gateway = payment_gateway_fake::bind(config).await.unwrap();
    let url = format!("http://{}", gateway.address());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(gateway.run(async {
        stopped.await.ok();
    }));
    let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    Running { url, client, stop, task }
}

impl Running {
    pub fn request(&self, key: &str, minor: i64, token: &str) -> RequestBuilder {
        let body = json!({"amount": {"minor": minor, "currency": "EUR"}, "token": token});
        self.client.post(format!("{}/charges", self.url)).header("Idempotency-Key", key).json(&body)
    }

    pub async fn charge(&self, key: &str, minor: i64, token: &str) -> (u16, Value) {
        answer(self.request(key, minor, token).send().await.unwrap()).await
    }

    pub async fn refund(&self, id: &str) -> (u16, Value) {
        self.post(&format!("/charges/{id}/refunds")).await
    }

    pub async fn post(&self, path: &str) -> (u16, Value) {
        answer(self.client.post(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub async fn faults(&self, faults: Value) -> (u16, Value) {
        answer(self.client.put(format!("{}/faults", self.url)).json(&faults).send().await.unwrap()).await
    }

    pub async fn ledger(&self) -> Vec<Value> {
        self.get("/charges").await.1.as_array().unwrap().clone()
    }

    pub async fn stop(self) {
        self.stop.send(()).ok();
        self.task.await.unwrap().unwrap();
    }
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    (status, response.json().await.unwrap())
}
