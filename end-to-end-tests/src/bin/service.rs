//! Any service of the system in one binary, so that tests can start and kill real processes without depending on the
//! binaries of other packages.

use clap::Parser;
use event_runtime::{
    shutdown,
    telemetry::{self, LogOptions},
};

#[derive(Parser)]
#[expect(clippy::enum_variant_names, reason = "the variants are named like the binaries they stand for")]
enum Service {
    OrderService(order_service::Config),
    PaymentService(payment_service::Config),
    InventoryService(inventory_service::Config),
    EmailService(email_service::Config),
    PaymentGatewayFake(payment_gateway_fake::Config),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let service = Service::parse();
    let telemetry = telemetry::init(&LogOptions::default())?;
    let ended = run(service).await;
    telemetry.shutdown().await;
    ended
}

async fn run(service: Service) -> anyhow::Result<()> {
    match service {
        Service::OrderService(config) => order_service::bind(config).await?.run(shutdown::signal()).await,
        Service::PaymentService(config) => payment_service::bind(config).await?.run(shutdown::signal()).await,
        Service::InventoryService(config) => inventory_service::bind(config).await?.run(shutdown::signal()).await,
        Service::EmailService(config) => email_service::bind(config).await?.run(shutdown::signal()).await,
        Service::PaymentGatewayFake(config) => payment_gateway_fake::bind(config).await?.run(shutdown::signal()).await,
    }
}
