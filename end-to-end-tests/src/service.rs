//! Any service of the system in one binary, so that real processes can be started and killed without depending on the
//! binaries of other packages.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use event_runtime::{
    cli::{self, ServiceCommand},
    config::TelemetryConfig,
    shutdown,
};

/// How long the gateway may take to end.
const GATEWAY_END: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[expect(clippy::enum_variant_names, reason = "the variants are named like the binaries they stand for")]
enum Service {
    OrderService(order_service::cli::Cli),
    PaymentService(ServiceCommand<payment_service::Config>),
    InventoryService(ServiceCommand<inventory_service::Config>),
    EmailService(ServiceCommand<email_service::Config>),
    PaymentGatewayFake(payment_gateway_fake::Config),
}

/// Runs the service that the command line names.
pub fn main() -> ExitCode {
    match Service::parse() {
        // Its command line brings its own runtime.
        Service::OrderService(command) => order_service::cli::run(command),
        service => cli::finish(cli::run(run(service))),
    }
}

async fn run(service: Service) -> anyhow::Result<u8> {
    use ServiceCommand::{Audit, Outbox, Serve};
    let logs = TelemetryConfig::default();
    match service {
        Service::PaymentService(Serve(config)) => {
            let work = async { payment_service::bind(config).await?.run_until_signal().await };
            cli::serve("payment-service", &logs, work).await
        }
        Service::InventoryService(Serve(config)) => {
            let work = async { inventory_service::bind(config).await?.run_until_signal().await };
            cli::serve("inventory-service", &logs, work).await
        }
        Service::EmailService(Serve(config)) => {
            cli::serve("email-service", &logs, async { email_service::bind(config).await?.run_until_signal().await })
                .await
        }
        Service::PaymentGatewayFake(config) => {
            let work = async { payment_gateway_fake::bind(config).await?.run(shutdown::signal(GATEWAY_END)).await };
            cli::serve("payment-gateway-fake", &logs, work).await
        }
        Service::PaymentService(Outbox(args))
        | Service::InventoryService(Outbox(args))
        | Service::EmailService(Outbox(args)) => cli::outbox(&args).await,
        Service::OrderService(_) => unreachable!("it is run above"),
        Service::PaymentService(Audit(args)) => cli::audit("payment-service", &args, payment_service::audit).await,
        Service::InventoryService(Audit(args)) => {
            cli::audit("inventory-service", &args, inventory_service::audit).await
        }
        Service::EmailService(Audit(args)) => cli::audit("email-service", &args, email_service::audit).await,
    }
}
