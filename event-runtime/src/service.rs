//! The shell a service runs in: HTTP first (so that a used port ends the start at once), then database, topics, relay
//! and consumer, each awaited with a clear line while it is away; on shutdown the same in reverse, under a deadline.

use std::{net::SocketAddr, sync::Arc};

use crate::{Clock, ConsumerBuilder, Database, Migration, config::ServiceConfig, outbox::OnPublished};

/// A service that has its address and its (lazy) database, and lacks what makes it this service.
pub struct ServiceBuilder {}

/// A service that can run.
pub struct Service {}

/// What makes a service this service.
pub struct App {
    /// Its own HTTP routes; `/health`, `/ready`, `/metrics` and `/inspect/{key}` are added.
    pub routes: axum::Router,
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
        let _ = (name, default_port, config);
        unimplemented!("written next")
    }

    /// Where HTTP listens; with port 0 configured, the port the system chose.
    pub fn address(&self) -> SocketAddr {
        unimplemented!("written next")
    }

    /// Runs until `shutdown` resolves, then drains and returns.
    ///
    /// # Errors
    /// When something fails that no waiting mends, such as a migration.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        shutdown.await;
        unimplemented!("written next")
    }
}

impl ServiceBuilder {
    /// The service's database, which its handlers and routes are built with.
    pub fn database(&self) -> &Database {
        unimplemented!("written next")
    }

    /// The service's clock.
    pub fn clock(&self) -> &Clock {
        unimplemented!("written next")
    }

    /// The service, complete.
    pub fn build(self, app: App) -> Service {
        let _ = app;
        Service {}
    }
}
