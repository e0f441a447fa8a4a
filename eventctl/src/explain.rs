//! `explain`: why an order is where it is. Evidence is gathered from every side at once, judged by a pure function, and
//! shown with the judgement.

mod diagnosis;
mod evidence;
mod gather;
mod show;

use std::time::Duration;

use event_runtime::{
    Clock,
    cli::{BrokerArgs, Format, Output, exit},
    config::{discovery, positive_duration},
};
use shared_events::OrderId;

use self::{
    diagnosis::{Verdict, diagnose},
    gather::Sources,
};

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The order's id, as `order-service place` printed it
    #[arg(value_name = "ORDER", value_parser = parse_order_id)]
    order: OrderId,

    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    /// How long services and Kafka may take to answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    timeout: Duration,

    /// Where order-service listens
    #[arg(long, value_name = "URL")]
    order_service: Option<String>,

    /// Where payment-service listens
    #[arg(long, value_name = "URL")]
    payment_service: Option<String>,

    /// Where inventory-service listens
    #[arg(long, value_name = "URL")]
    inventory_service: Option<String>,

    /// Where email-service listens
    #[arg(long, value_name = "URL")]
    email_service: Option<String>,

    #[command(flatten)]
    brokers: BrokerArgs,
}

pub async fn run(args: ExplainArgs) -> anyhow::Result<u8> {
    let output = Output::new(args.output);
    let sources = args.sources(&output);
    let evidence = gather::gather(&sources, args.order, args.timeout).await?;
    let verdict = diagnose(&evidence, Clock::system().now());
    show::show(&output, &evidence, &verdict)?;
    Ok(match verdict {
        Verdict::Unknown { .. } => exit::FAILURE,
        Verdict::Ended { .. } | Verdict::Blocked { .. } => exit::OK,
    })
}

impl ExplainArgs {
    fn sources(&self, output: &Output) -> Sources {
        let found = discovery::Discovery::from_process();
        let kafka = self.brokers.find(output, &found);
        let services = [
            ("order-service", &self.order_service, discovery::ORDER_SERVICE),
            ("payment-service", &self.payment_service, discovery::PAYMENT_SERVICE),
            ("inventory-service", &self.inventory_service, discovery::INVENTORY_SERVICE),
            ("email-service", &self.email_service, discovery::EMAIL_SERVICE),
        ];
        let services = services.map(|(name, flag, address)| {
            (name, event_runtime::cli::announce(output, &found, name, flag.as_deref(), address))
        });
        // It is asked nothing; only named where it is what is away.
        let payment_gateway = found.find(None, discovery::PAYMENT_GATEWAY).value;
        Sources { kafka, services: services.to_vec(), payment_gateway }
    }
}

fn parse_order_id(text: &str) -> Result<OrderId, String> {
    text.parse().map_err(|_| {
        "an order id looks like 01890a5d-ac96-774b-bcce-b302099a8057; `order-service list` shows them".to_owned()
    })
}
