//! Tells customers by mail how their order ended.
//!
//! A mail is an effect outside the database, so it can be sent twice: after a crash between the server's answer and the
//! commit. Every copy has the same Message-ID, made from the event's id ([`letter`]). The mail server decides what comes
//! next ([`mailer`]): one that is away is waited for, one that says "not now" is asked again for ever, and only what it
//! refuses for good goes to the dead-letter topic. It deliberately asks nobody about the order: the event says it all.

mod audit;
mod config;
mod error;
mod handlers;
mod http;
pub mod letter;
pub mod mailer;
mod store;
mod templates;

use anyhow::Context;
pub use audit::audit;
pub use config::Config;
use event_runtime::{ConsumerBuilder, Service, service::App};
pub use handlers::{ConfirmOrder, ExplainCancellation, Post};
pub use http::routes;
use shared_events::topics;
pub use store::MIGRATIONS;

/// Where HTTP listens on 127.0.0.1 unless configured.
pub const DEFAULT_PORT: u16 = 8083;

/// Takes the HTTP address and puts the service together; nothing is connected before [`Service::run`].
///
/// # Errors
/// When the address is in use, a configuration value cannot be used, or mails can be written nowhere.
pub async fn bind(config: Config) -> anyhow::Result<Service> {
    let mailer = config.mailer().await.context("email-service cannot send mail")?;
    let builder = Service::bind(topics::EMAIL_SERVICE.name, DEFAULT_PORT, config.service).await?;
    let database = builder.database().clone();
    let post = Post::new(mailer, config.mail_from);
    let consumer = ConsumerBuilder::new(topics::EMAIL_SERVICE.name)
        .effect(&database, ConfirmOrder(post.clone()))
        .effect(&database, ExplainCancellation(post));
    Ok(builder.build(App {
        routes: http::routes(database),
        consumers: vec![consumer],
        topics: topics::TOPICS,
        migrations: MIGRATIONS,
        on_published: None,
    }))
}
