//! Charges and refunds orders at a payment gateway, each order once whatever dies in between.
//!
//! `order.created` is charged and answered with `payment.succeeded` or `payment.failed`; `order.cancelled` gives back
//! what was charged and says `payment.refunded` ([`handlers`]). What is decided is in [`domain`], without I/O. Three
//! things hold:
//!
//! - The idempotency key at the gateway is the order's id, so a repeated charge takes no more money.
//! - `payment.failed` is said only when the gateway confirms by that key that there is no charge, was never asked, or
//!   has given the charge back.
//! - A charge that comes to light after the order ended is given back.
//!
//! It deliberately knows nothing of cards, and of orders no more than their events say.

mod audit;
mod config;
pub mod domain;
pub mod error;
pub mod gateway;
pub mod handlers;
mod http;
pub mod store;

use anyhow::Context;
use event_runtime::{Service, service::App};
use shared_events::topics;

pub use audit::audit;
pub use config::Config;
use gateway::Gateway;

/// Where HTTP listens on 127.0.0.1 unless configured.
pub const DEFAULT_PORT: u16 = 8081;

/// Takes the HTTP address and puts the service together; nothing is connected before [`Service::run`].
///
/// # Errors
/// When the address is in use or a configuration value cannot be used.
pub async fn bind(config: Config) -> anyhow::Result<Service> {
    let builder = Service::bind(topics::PAYMENT_SERVICE.name, DEFAULT_PORT, config.service).await?;
    let gateway =
        Gateway::new(&config.gateway_url, config.gateway_timeout).context("the HTTP client cannot be made")?;
    let database = builder.database().clone();
    let consumer = handlers::consumer(&database, &gateway, builder.clock(), config.gateway_settles_after);
    Ok(builder.build(App {
        routes: http::routes(&database),
        consumers: vec![consumer],
        topics: topics::TOPICS,
        migrations: store::MIGRATIONS,
        on_published: None,
    }))
}
