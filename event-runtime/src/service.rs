//! The shell a service runs in: HTTP first (so that a used port ends the start at once), then database, topics, relay
//! and consumers, each awaited with a clear line while it is away; on shutdown the same in reverse, under a deadline.

mod housekeeping;
mod http_server;
mod running;
mod start;
mod state;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use shared_events::Topic;
use tokio::{net::TcpListener, time::Instant};
use tracing::Instrument;

use crate::{
    Clock, ConsumerBuilder, Database, Migration,
    config::ServiceConfig,
    error::Chain,
    outbox::OnPublished,
    producer::Producer,
    shutdown,
    telemetry::{lines::SERVICE_SPAN, metrics::Metrics},
};
use http_server::HttpServer;
use running::Running;
use state::State;

/// How long after its shutdown timeout a process may still be there: traces have 5 s to be sent.
const LAST_PATIENCE: Duration = Duration::from_secs(6);

/// A service that has its address and its (lazy) database, and lacks what makes it this service.
pub struct ServiceBuilder {
    name: &'static str,
    config: ServiceConfig,
    listener: TcpListener,
    address: SocketAddr,
    database: Database,
    producer: Producer,
    clock: Clock,
    metrics: Metrics,
}

/// A service that can run.
pub struct Service {
    shell: ServiceBuilder,
    app: App,
}

/// What makes a service this service.
pub struct App {
    /// Its own HTTP routes; `/health`, `/ready`, `/metrics` and `/inspect/{key}` are added.
    pub routes: Router,
    /// Its handlers, one consumer a group.
    pub consumers: Vec<ConsumerBuilder>,
    /// Topics that must be there, at least those its events go to. They and those its consumers read are made where they are
    /// missing.
    pub topics: &'static [Topic],
    /// Its schema.
    pub migrations: &'static [Migration],
    /// Told of published events.
    pub on_published: Option<Arc<dyn OnPublished>>,
}

impl Service {
    /// Binds the HTTP address (`default_port` on 127.0.0.1 unless configured) and prepares the database pool; connects
    /// to nothing yet.
    ///
    /// # Errors
    /// When the address is in use or a configuration value cannot be used; the message says which and how to mend it.
    pub async fn bind(name: &'static str, default_port: u16, config: ServiceConfig) -> anyhow::Result<ServiceBuilder> {
        let wanted = config.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default_port)));
        let listener = listen(wanted).await?;
        let address = listener.local_addr().context("the HTTP listener has no address")?;
        // It connects in the background; made here, so that a setting it refuses ends the start at once.
        let producer = Producer::new(&config.kafka)?;
        let database = Database::connect_lazy(&config.database_url)?;
        let (clock, metrics) = (Clock::system(), Metrics::new());
        Ok(ServiceBuilder { name, config, listener, address, database, producer, clock, metrics })
    }

    /// Where HTTP listens; with port 0 configured, the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.shell.address
    }

    /// As [`run`](Self::run), as the whole of a process: until SIGTERM or SIGINT. A second signal ends the process at once,
    /// and so does an end that takes much longer than the configured shutdown timeout: whatever blocks it, the process ends.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until_signal(self) -> anyhow::Result<()> {
        let limit = self.shell.config.shutdown_timeout + LAST_PATIENCE;
        self.run(shutdown::signal(limit)).await
    }

    /// Runs until `shutdown` resolves, then drains and returns within the configured shutdown timeout.
    ///
    /// HTTP answers at once. What is away (database, Kafka) is waited for, with a line in the log every few seconds and
    /// the reason at `/ready`.
    ///
    /// # Errors
    /// When something fails that no waiting mends, such as a migration.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let span = tracing::info_span!(SERVICE_SPAN, service = self.shell.name);
        self.run_in_span(shutdown).instrument(span).await
    }

    async fn run_in_span(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Service { shell, app } = self;
        let ServiceBuilder { name, config, listener, address, database, producer, clock, metrics } = shell;
        let state = Arc::new(State::new(name, database.clone(), clock.clone(), metrics));
        let http = HttpServer::start(listener, name, &config, app.routes, state.clone());
        tracing::info!("listening on http://{address}");

        let mut running = Running::default();
        let start = start::Start { name, config: &config, database: &database, producer, clock, state: &state };
        let App { consumers, topics, migrations, on_published, .. } = app;
        let parts = start::Parts { consumers, topics, migrations, on_published };
        let work = async {
            start.run(parts, &mut running).await?;
            running.until_failure().await
        };
        // A start that waits for a server must not hold up the end.
        let outcome = tokio::select! {
            biased;
            () = pin!(shutdown) => Ok(()),
            failure = work => failure,
        };
        if let Err(error) = &outcome {
            tracing::error!(error = %Chain(error.as_ref()), "stopping because of a failure");
        }
        state.stopping();
        stop(running, http, &database, &config).await;
        outcome
    }
}

impl ServiceBuilder {
    /// The service's database, which its handlers and routes are built with.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The service's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What the service counts: its own metrics join those of the runtime.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where HTTP listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same with another clock: for tests.
    pub fn with_clock(mut self, clock: Clock) -> ServiceBuilder {
        self.clock = clock;
        self
    }

    /// The service, complete.
    pub fn build(self, app: App) -> Service {
        Service { shell: self, app }
    }
}

async fn listen(wanted: SocketAddr) -> anyhow::Result<TcpListener> {
    let hint = format!("choose another with --listen {}:0 (or LISTEN), which takes a free port", wanted.ip());
    TcpListener::bind(wanted).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("port {} on {} is in use; {hint}", wanted.port(), wanted.ip()),
        _ => anyhow::Error::new(error).context(format!("cannot listen on {wanted}; {hint}")),
    })
}

/// In the reverse order of the start, each under what is left of the deadline: whatever hangs, this returns.
async fn stop(running: Running, http: HttpServer, database: &Database, config: &ServiceConfig) {
    let began = Instant::now();
    // Handlers get most of the time; a fifth is kept for what follows them.
    running.stop(began + config.shutdown_timeout.mul_f64(0.8)).await;
    let deadline = began + config.shutdown_timeout;
    http.stop(deadline).await;
    if tokio::time::timeout_at(deadline, database.close()).await.is_err() {
        tracing::debug!("the database connections did not close in time");
    }
    tracing::info!(milliseconds = began.elapsed().as_millis() as u64, "stopped");
}
