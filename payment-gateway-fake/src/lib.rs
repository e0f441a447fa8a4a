//! A **fake** payment provider over HTTP: no money moves, no card number is ever asked for.
//!
//! It behaves like a real provider where that matters to the services that call it: idempotency keys, a ledger that
//! survives a restart, refunds, a rate limit, and failures on demand. It depends on nothing of this workspace, so that
//! it stays what a provider is: somebody else's program.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /charges`, header `Idempotency-Key`, body `{"amount":{"minor":1250,"currency":"EUR"},"token":"tok_visa"}` | 200 with the charge; 402 declined; 409 the key was used with another body |
//! | `GET /charges?idempotencyKey=K` | array with the charge made under this key, or empty |
//! | `GET /charges` | the whole ledger; answers whatever fault is set, since it is the auditor's view |
//! | `POST /charges/{id}/refunds` | 200 with the refunded charge, however often it is asked |
//! | `GET /faults`, `PUT /faults` | the faults; `{"mode":"up"\|"down"\|"slow","delayMs":500,"maxRps":50,"failureRate":0.3}` |
//! | `GET /health` | 200 unless it is down |
//!
//! | token | what happens |
//! | --- | --- |
//! | `tok_visa` | charged |
//! | `tok_chargeDeclined`, `tok_insufficient_funds` | declined with 402 |
//! | `tok_flaky` | for each key 500 twice, then charged |
//! | `tok_timeout` | charged, and the answer never comes |
//! | any other | declined with 402 `invalid_token` |
//!
//! A slow gateway charges *late*: the delay comes before the ledger is written, and the charge is made even if the
//! caller has hung up by then. Look-ups are never slow. `failureRate` is the share of charges and refunds that get a 500,
//! spread evenly; every other one of them has been carried out all the same.

mod config;
mod faults;
mod http;
mod ledger;
mod problem;
mod token;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use tokio::{net::TcpListener, sync::watch};
use tracing::Instrument;

pub use config::Config;

/// How long answers under way may take to finish once the gateway is told to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// A gateway that has its address and its ledger, ready to run.
pub struct Gateway {
    address: SocketAddr,
    listener: TcpListener,
    ledger: ledger::Ledger,
    faults: faults::Faults,
}

/// Opens the ledger and binds the address.
///
/// # Errors
/// When the address is in use, or the ledger cannot be read or is in use; the message says which and how to mend it.
pub async fn bind(config: Config) -> anyhow::Result<Gateway> {
    let ledger = match &config.ledger {
        Some(path) => ledger::Ledger::open(path)?,
        None => ledger::Ledger::in_memory(),
    };
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}: is it in use? --listen HOST:PORT takes another, port 0 a free one", config.listen)
    })?;
    let address = listener.local_addr().context("the listener has no address")?;
    Ok(Gateway { address, listener, ledger, faults: faults::Faults::new(&config) })
}

impl Gateway {
    /// Where it listens; with port 0 configured, the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` resolves. Connections that are held on purpose are let go at once.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let span = named();
        span.in_scope(|| tracing::info!("fake payment gateway (no money moves) listening on http://{}", self.address));
        let (stop, stopped) = watch::channel(false);
        let state =
            http::Shared { ledger: Arc::new(self.ledger), faults: Arc::new(self.faults), stopped: stopped.clone() };
        let routes = http::routes(state).layer(middleware::from_fn(in_span));
        let server = axum::serve(self.listener, routes).with_graceful_shutdown(until_stopped(stopped));
        let mut server = std::pin::pin!(server.into_future());
        tokio::select! {
            ended = &mut server => return ended.context("the listener failed"),
            () = shutdown => stop.send_replace(true),
        };
        match tokio::time::timeout(DRAIN, server).await {
            Ok(ended) => ended.context("the listener failed"),
            Err(_) => {
                tracing::warn!("stopped with answers still under way");
                Ok(())
            }
        }
    }
}

/// Says whose log line it is, where other services write to the same log.
fn named() -> tracing::Span {
    tracing::info_span!("service", service = "payment-gateway")
}

async fn in_span(request: Request, next: Next) -> Response {
    next.run(request).instrument(named()).await
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the gateway.
    drop(stopped.wait_for(|stopped| *stopped).await);
}
