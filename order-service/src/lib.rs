//! Takes orders over HTTP and brings every one of them to its end.
//!
//! An order begins as a row, an `order.created` and a delayed `order.deadline-reached` in one transaction
//! ([`http`], [`store`]). What the other services answer moves a pure state machine ([`domain`]) under the lock of the
//! order's row ([`handlers`]), which ends in exactly one `order.completed` or `order.cancelled`. It deliberately knows
//! nothing of how a charge or a reservation is done or undone: whoever did it undoes it on `order.cancelled`.

mod audit;
pub mod catalogue;
pub mod cli;
mod config;
pub mod domain;
mod error;
pub mod handlers;
pub mod http;
mod intake;
pub mod store;

use std::sync::Arc;

pub use audit::audit;
pub use config::Config;
use event_runtime::{Service, service::App};
use shared_events::topics;

/// Where HTTP listens on 127.0.0.1 unless configured.
pub const DEFAULT_PORT: u16 = 8080;

/// Takes the HTTP address and puts the service together; nothing is connected before [`Service::run`].
///
/// # Errors
/// When the address is in use or a configuration value cannot be used.
pub async fn bind(config: Config) -> anyhow::Result<Service> {
    let builder = Service::bind(topics::ORDER_SERVICE.name, DEFAULT_PORT, config.service).await?;
    let routes = http::routes(builder.database().clone(), builder.clock().clone(), config.order_deadline);
    let consumers = handlers::consumers(builder.database());
    Ok(builder.build(App {
        routes,
        consumers,
        topics: topics::TOPICS,
        migrations: store::MIGRATIONS,
        on_published: Some(Arc::new(store::WriteBack)),
    }))
}
