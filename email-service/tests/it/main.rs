//! Mails as a mail server sees them, and as files. The database is SQLite, or the PostgreSQL server that
//! `TEST_DATABASE_URL` names.
#![expect(clippy::unwrap_used, reason = "outside of test functions clippy does not know a test")]

mod binary;
mod content;
mod folder;
mod http;
mod outages;
mod service;

use std::{path::Path, time::Duration};

use email_service::{
    MIGRATIONS, Post,
    mailer::{Folder, Mailer, Smtp},
};
use event_runtime::Database;
use jiff::Timestamp;
use shared_events::{Money, OrderCancelled, OrderCompleted, OrderId, OrderItem, PaymentId};
use test_support::{SmtpSink, TempDatabase};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

async fn database() -> (TempDatabase, Database) {
    let place = TempDatabase::any().await;
    let database = place.migrated(MIGRATIONS).await;
    (place, database)
}

/// Sends to `sink`, which may take up to `timeout` for a mail.
fn post_within(sink: &SmtpSink, timeout: Duration) -> Post {
    let smtp = Smtp::new(&sink.url().parse().unwrap(), timeout);
    Post::new(Mailer::Smtp(smtp), "Shop <shop@example.org>".parse().unwrap())
}

fn post(sink: &SmtpSink) -> Post {
    post_within(sink, Duration::from_secs(5))
}

async fn post_to(folder: &Path) -> Post {
    Post::new(Mailer::Folder(Folder::open(folder).await.unwrap()), "shop@example.org".parse().unwrap())
}

fn items() -> Vec<OrderItem> {
    let item = |sku: &str, quantity, cents| OrderItem { sku: sku.to_owned(), quantity, unit_price: Money::eur(cents) };
    vec![item("COFFEE-1KG", 2, 1890), item("MUG<BLUE>", 1, 1250)]
}

fn completed(to: &str) -> OrderCompleted {
    OrderCompleted {
        order_id: OrderId::new(),
        customer_email: to.to_owned(),
        items: items(),
        total: Money::eur(5030),
        payment_id: PaymentId::new(),
    }
}

fn cancelled(to: &str) -> OrderCancelled {
    OrderCancelled {
        order_id: OrderId::new(),
        customer_email: to.to_owned(),
        items: items(),
        total: Money::eur(5030),
        reason: "your bank said \"no\" & <nothing> else".to_owned(),
    }
}
