//! The shell a service runs in: HTTP first (so that a used port ends the start at once), then database, topics, relay
//! and consumers, each awaited with a clear line while it is away; on shutdown the same in reverse, under a deadline.

mod state;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    Clock, ConsumerBuilder, Database, Migration,
    config::ServiceConfig,
    http::{self, Limits, Operations, RequestMetrics},
    outbox::OnPublished,
    telemetry::{lines::SERVICE_SPAN, metrics::Metrics},
};
use state::State;

/// A service that has its address and its (lazy) database, and lacks what makes it this service.
pub struct ServiceBuilder {
    name: &'static str,
    config: ServiceConfig,
    listener: TcpListener,
    address: SocketAddr,
    database: Database,
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
        config.kafka.client()?;
        let database = Database::connect_lazy(&config.database_url)?;
        Ok(ServiceBuilder {
            name,
            config,
            listener,
            address,
            database,
            clock: Clock::system(),
            metrics: Metrics::new(),
        })
    }

    /// Where HTTP listens; with port 0 configured, the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.shell.address
    }

    /// Runs until `shutdown` resolves, then drains and returns.
    ///
    /// # Errors
    /// When something fails that no waiting mends, such as a migration.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let span = tracing::info_span!(SERVICE_SPAN, service = self.shell.name);
        self.run_in_span(shutdown).instrument(span).await
    }

    async fn run_in_span(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Service { shell, app } = self;
        let state = Arc::new(State::new(shell.name, shell.database.clone(), shell.metrics.clone()));
        let http = Http::start(shell.listener, shell.name, &shell.config, app.routes, state.clone());
        tracing::info!("listening on http://{}", shell.address);
        state.ready();
        shutdown.await;
        state.stopping();
        http.stop(Instant::now() + shell.config.shutdown_timeout).await;
        tracing::info!("stopped");
        Ok(())
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
    let hint = format!("choose another address with --listen {}:0 (or LISTEN), which takes a free port", wanted.ip());
    TcpListener::bind(wanted).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("port {} on {} is in use; {hint}", wanted.port(), wanted.ip())
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {wanted}; {hint}")),
    })
}

/// The HTTP server, which outlives everything else: operators ask it how the rest is getting on.
struct Http {
    server: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Http {
    fn start(
        listener: TcpListener,
        name: &'static str,
        config: &ServiceConfig,
        routes: Router,
        state: Arc<State>,
    ) -> Http {
        let limits = Limits { request_timeout: config.request_timeout, max_body_bytes: config.max_body_bytes };
        let requests = RequestMetrics::register(state.metrics());
        let routes = http::finish(routes.merge(http::operations(state)), name, limits, requests);
        let stop = CancellationToken::new();
        let server = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(server.into_future().in_current_span());
        Http { server, stop }
    }

    /// Takes no more connections and waits for the requests in hand; at the deadline they are cut off.
    async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        if tokio::time::timeout_at(deadline, &mut self.server).await.is_err() {
            tracing::warn!("requests were cut off at the shutdown deadline");
            self.server.abort();
        }
    }
}
