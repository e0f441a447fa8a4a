use std::sync::Arc;

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::state::State;
use crate::{
    config::ServiceConfig,
    http::{self, Limits, Operations, RequestMetrics},
};

/// The HTTP server, which outlives everything else: operators ask it how the rest is getting on.
pub(super) struct HttpServer {
    server: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl HttpServer {
    pub(super) fn start(
        listener: TcpListener,
        name: &'static str,
        config: &ServiceConfig,
        routes: Router,
        state: Arc<State>,
    ) -> HttpServer {
        let limits = Limits { request_timeout: config.request_timeout, max_body_bytes: config.max_body_bytes };
        let requests = RequestMetrics::register(state.metrics());
        let routes = http::once_migrated(routes, state.clone()).merge(http::operations(state));
        let routes = http::finish(routes, name, limits, requests);
        let stop = CancellationToken::new();
        let server = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        HttpServer { server: tokio::spawn(server.into_future().in_current_span()), stop }
    }

    /// Takes no more connections and waits for the requests in hand; at the deadline they are cut off.
    pub(super) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        if tokio::time::timeout_at(deadline, &mut self.server).await.is_err() {
            tracing::warn!("requests were cut off at the shutdown deadline");
            self.server.abort();
        }
    }
}
