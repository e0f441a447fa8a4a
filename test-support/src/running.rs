use std::{net::SocketAddr, time::Duration};

use event_runtime::Service;
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// A service in this process. Dropping it without [`stop`](Self::stop) cuts it off.
pub struct RunningService {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl RunningService {
    /// Runs `service`; it may not be ready yet.
    pub fn start(service: Service) -> RunningService {
        let address = service.address();
        let (stop, stopped) = oneshot::channel();
        // A sender that is gone stops the service as well.
        let shutdown = async { drop(stopped.await) };
        RunningService { address, stop, task: tokio::spawn(service.run(shutdown)) }
    }

    /// Runs `service` and waits until `/ready` says yes.
    ///
    /// # Panics
    /// When it does not within 30 s.
    pub async fn ready(service: Service) -> RunningService {
        let running = RunningService::start(service);
        eventually(PATIENCE, "ready service", async || match reqwest::get(running.url("/ready")).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.text().await.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        running
    }

    /// `http://127.0.0.1:port` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it answers there, as text.
    pub async fn text(&self, path: &str) -> String {
        let answer = reqwest::get(self.url(path)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.text().await.unwrap_or_else(|error| panic!("{path} breaks off: {error}"))
    }

    /// What it answers there, which must be JSON.
    pub async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(self.url(path)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.json().await.unwrap_or_else(|error| panic!("{path} is no JSON: {error}"))
    }

    /// Stops it in good order.
    ///
    /// # Panics
    /// When it ended with an error, or does not end within 30 s.
    pub async fn stop(self) {
        // It may have ended already, and then nobody receives: the result below says so.
        self.stop.send(()).unwrap_or(());
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("the service ends when it is told to");
        ended.expect("the service does not panic").expect("the service ends well");
    }
}
