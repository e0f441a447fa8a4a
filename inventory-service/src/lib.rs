//! Keeps stock, and sets it aside for orders.
//!
//! Every piece of a product is available, reserved for an order, or sold; only a statement that names how many moves it
//! from one to the next, and the table refuses what would make or lose a piece ([`store`]). What an event means for an
//! order's reservation, and whether there is enough, is decided without I/O ([`domain`]), under the locks of the
//! reservations' and the products' rows ([`handlers`]).
//! It deliberately knows nothing of payments: order-service alone says how an order ended.

mod audit;
mod config;
pub mod domain;
mod error;
pub mod handlers;
mod http;
pub mod store;

pub use audit::audit;
pub use config::Config;
use event_runtime::{ConsumerBuilder, Service, service::App};
pub use http::routes;
use shared_events::topics;

/// Where HTTP listens on 127.0.0.1 unless configured.
pub const DEFAULT_PORT: u16 = 8082;

/// Transactions side by side. Those that touch the same product wait for its row: more of them would be smaller, and wait.
const CONCURRENCY: usize = 2;

/// Takes the HTTP address and puts the service together; nothing is connected before [`Service::run`].
///
/// # Errors
/// When the address is in use or a configuration value cannot be used.
pub async fn bind(config: Config) -> anyhow::Result<Service> {
    let builder = Service::bind(topics::INVENTORY_SERVICE.name, DEFAULT_PORT, config.service).await?;
    let database = builder.database().clone();
    let consumer = ConsumerBuilder::new(topics::INVENTORY_SERVICE.name)
        .concurrency(CONCURRENCY)
        .batched(&database, handlers::MoveStock);
    Ok(builder.build(App {
        routes: http::routes(database),
        consumers: vec![consumer],
        topics: topics::TOPICS,
        migrations: store::MIGRATIONS,
        on_published: None,
    }))
}
