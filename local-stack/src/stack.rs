//! Starts broker, gateway and services in this process, and ends them in reverse.

mod process;

use std::{
    ffi::OsString,
    future::Future,
    path::{self, Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser};
use event_runtime::embedded::EmbeddedBroker;
use shared_events::topics;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use process::Kill;
use process::Launch;

use crate::Folder;

/// The command of this program that is payment-service.
pub(crate) const PAYMENT_PROCESS: &str = "payment-service";

/// What can be chosen about a stack.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Where order-service listens; 0 takes a free port. All others always take free ports.
    pub order_port: u16,
    /// How many brokers the embedded cluster has.
    pub brokers: u16,
    /// This program, where payment-service is to be a process of its own, for chaos to kill.
    pub payment_process: Option<PathBuf>,
}

impl Default for StackOptions {
    /// A free port, three brokers, everything in this process.
    fn default() -> StackOptions {
        StackOptions { order_port: 0, brokers: 3, payment_process: None }
    }
}

/// Where everything listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Kafka bootstrap servers.
    pub kafka: String,
    /// Base URLs of the services, by name.
    pub services: Vec<(&'static str, String)>,
}

impl Addresses {
    /// The base URL of `service`.
    pub fn url(&self, service: &str) -> &str {
        self.services.iter().find(|(name, _)| *name == service).map_or("", |(_, url)| url)
    }
}

/// A running stack.
pub struct Stack {
    addresses: Addresses,
    shutdown: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
    // Outlives the services: a broker that went first would keep them from saying goodbye.
    broker: Arc<EmbeddedBroker>,
    kills: Option<mpsc::Sender<Kill>>,
}

impl Stack {
    /// Starts everything, and returns once every service says that it is ready.
    ///
    /// # Errors
    /// When something cannot be started; the message names it.
    pub async fn start(folder: &Folder, options: &StackOptions) -> anyhow::Result<Stack> {
        let broker = EmbeddedBroker::start(options.brokers).context("the embedded broker did not start")?;
        create_topics(&broker)?;
        let mut stack = Stack {
            addresses: Addresses { kafka: broker.addresses(), services: Vec::new() },
            shutdown: CancellationToken::new(),
            running: JoinSet::new(),
            broker: Arc::new(broker),
            kills: None,
        };

        let gateway = payment_gateway_fake::bind(config([
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--ledger".into(),
            folder.ledger().into(),
        ])?)
        .await?;
        let gateway_url = stack.add("payment-gateway-fake", gateway.address(), |end| gateway.run(end));

        let mut deadline = Vec::new();
        if options.payment_process.is_some() {
            // A killed consumer is missed only when its session ends, which is no reason to cancel an order here.
            deadline.extend(["--order-deadline".into(), "5m".into()]);
        }
        let service = order_service::bind(stack.config("order-service", folder, options.order_port, deadline)?)
            .await
            .context("order-service cannot start; --order-port chooses its port here")?;
        stack.add("order-service", service.address(), |end| service.run(end));

        let mut to_gateway: Vec<OsString> = vec!["--gateway-url".into(), gateway_url.into()];
        match &options.payment_process {
            None => {
                let service = payment_service::bind(stack.config("payment-service", folder, 0, to_gateway)?).await?;
                stack.add("payment-service", service.address(), |end| service.run(end));
            }
            Some(program) => {
                // Long enough to be killed while it waits for the answer to a charge.
                to_gateway.extend(["--gateway-timeout".into(), "20s".into()]);
                let address = process::free_address().context("there is no free port for payment-service")?;
                let arguments = stack.arguments("payment-service", folder, address.port(), to_gateway);
                let launch = Launch::new(program.clone(), [vec![PAYMENT_PROCESS.into()], arguments].concat());
                let (kills, asked) = mpsc::channel(1);
                stack.kills = Some(kills);
                stack.add("payment-service", address, |end| launch.supervise(asked, end));
            }
        }

        let service = inventory_service::bind(stack.config("inventory-service", folder, 0, Vec::new())?).await?;
        stack.add("inventory-service", service.address(), |end| service.run(end));

        let to_folder = vec!["--mail-dir".into(), folder.mails().into()];
        let service = email_service::bind(stack.config("email-service", folder, 0, to_folder)?).await?;
        stack.add("email-service", service.address(), |end| service.run(end));

        folder.announce(&stack.environment(&folder.mails()))?;
        stack.wait_until_ready().await?;
        Ok(stack)
    }

    /// Where everything listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The broker, to inject faults.
    pub fn broker(&self) -> &Arc<EmbeddedBroker> {
        &self.broker
    }

    /// Kills payment-service, where it is a process of its own.
    pub(crate) fn kills(&self) -> Option<mpsc::Sender<Kill>> {
        self.kills.clone()
    }

    /// Resolves when a service ends although nobody told it to.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            Some(Ok(Ok(()))) | None => anyhow!("a service ended without being told to"),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => anyhow!(panic).context("a service panicked"),
        }
    }

    /// Ends all services, then the broker.
    ///
    /// # Errors
    /// The first error of a service that did not end cleanly.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            result = result.and(ended.map_err(anyhow::Error::from).flatten());
        }
        drop(self.broker);
        result
    }

    fn config<C: Args>(&self, service: &str, folder: &Folder, port: u16, more: Vec<OsString>) -> anyhow::Result<C> {
        config(self.arguments(service, folder, port, more))
    }

    /// The arguments every service takes, as its command line would get them, and `more`.
    fn arguments(&self, service: &str, folder: &Folder, port: u16, more: Vec<OsString>) -> Vec<OsString> {
        let kafka = self.broker.config();
        let mut arguments: Vec<OsString> = vec![
            "--brokers".into(),
            kafka.brokers.into(),
            "--database-url".into(),
            folder.database_url(service).into(),
            "--listen".into(),
            format!("127.0.0.1:{port}").into(),
        ];
        for setting in kafka.settings {
            arguments.extend(["-X".into(), setting.into()]);
        }
        arguments.extend(more);
        arguments
    }

    /// Runs a service as a task, and returns its base URL.
    fn add<F>(
        &mut self,
        name: &'static str,
        address: std::net::SocketAddr,
        run: impl FnOnce(tokio_util::sync::WaitForCancellationFutureOwned) -> F,
    ) -> String
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let future = run(self.shutdown.clone().cancelled_owned());
        self.running.spawn(async move { future.await.with_context(|| format!("{name} failed")) });
        let url = format!("http://{address}");
        self.addresses.services.push((name, url.clone()));
        url
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let services: Vec<_> =
            self.addresses.services.iter().filter(|(name, _)| *name != "payment-gateway-fake").cloned().collect();
        let all_ready = async {
            for (_, url) in services {
                while !reqwest::get(format!("{url}/ready")).await.is_ok_and(|answer| answer.status().is_success()) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        };
        tokio::select! {
            () = all_ready => Ok(()),
            error = self.failed() => Err(error),
            () = tokio::time::sleep(std::time::Duration::from_secs(30)) => bail!("the services are not ready after 30 s"),
        }
    }

    fn environment(&self, mails: &Path) -> Vec<(&'static str, String)> {
        let url = |service: &str| self.addresses.url(service).to_owned();
        vec![
            ("KAFKA_BROKERS", self.addresses.kafka.clone()),
            ("ORDER_SERVICE_URL", url("order-service")),
            ("PAYMENT_SERVICE_URL", url("payment-service")),
            ("INVENTORY_SERVICE_URL", url("inventory-service")),
            ("EMAIL_SERVICE_URL", url("email-service")),
            ("PAYMENT_GATEWAY_URL", url("payment-gateway-fake")),
            // The command lines may run in a folder below.
            ("MAIL_DIR", path::absolute(mails).unwrap_or_else(|_| mails.to_owned()).display().to_string()),
        ]
    }
}

/// The mock cluster has no CreateTopics request, so topics are made through its own interface.
fn create_topics(broker: &EmbeddedBroker) -> anyhow::Result<()> {
    for (name, partitions) in topics::all() {
        broker.create_topic(&name, partitions).with_context(|| format!("topic {name} cannot be created"))?;
    }
    Ok(())
}

/// A service's configuration from arguments, the way its own command line reads them.
fn config<C: Args>(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<C> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line<C: Args> {
        #[command(flatten)]
        config: C,
    }
    // What is wrong can only come from the environment: the arguments above are ours. clap's first line says it all.
    let parsed = Line::try_parse_from(arguments).map_err(|error| {
        let text = error.to_string();
        anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    });
    Ok(parsed?.config)
}
