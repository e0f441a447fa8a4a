//! The whole system as child processes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use shared_events::topics::GROUPS;
use test_support::{SmtpSink, eventually};
use tokio::{io::AsyncWriteExt, process::Command, time::sleep};

use crate::{Order, OrderRequest, Process, Servers};

/// Every service, order-service first.
pub(crate) const SERVICES: [&str; 4] = ["order-service", "payment-service", "inventory-service", "email-service"];
const GATEWAY: &str = "payment-gateway-fake";

/// What a test may choose about its stack.
#[derive(Default)]
pub struct StackBuilder {
    program: PathBuf,
    instances: usize,
    own_database: bool,
    arguments: BTreeMap<&'static str, Vec<String>>,
}

/// Broker, databases, gateway, mail server and every service.
pub struct Stack {
    builder: StackBuilder,
    servers: Servers,
    smtp: SmtpSink,
    gateway: Option<Process>,
    services: BTreeMap<&'static str, Vec<Process>>,
    http: reqwest::Client,
    /// The logs of processes that the test has ended.
    ended: Vec<String>,
}

/// Stock of one sku, as inventory-service counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct StockLevel {
    /// For sale.
    pub available: i64,
    /// Set aside for orders that are still open.
    pub reserved: i64,
    /// Sold.
    pub sold: i64,
}

impl StackBuilder {
    /// A stack of one instance a service, run by `program`: the `service` binary of this crate.
    pub fn new(program: impl Into<PathBuf>) -> StackBuilder {
        StackBuilder { program: program.into(), instances: 1, ..StackBuilder::default() }
    }

    /// So many instances of each service.
    pub fn instances(self, instances: usize) -> StackBuilder {
        StackBuilder { instances, ..self }
    }

    /// With a PostgreSQL of its own, which the test may kill, where servers are real.
    pub fn own_database(self) -> StackBuilder {
        StackBuilder { own_database: true, ..self }
    }

    /// Further arguments for `service`.
    pub fn with(mut self, service: &'static str, arguments: &[&str]) -> StackBuilder {
        self.arguments.entry(service).or_default().extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// When something does not start; the error shows its log.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let servers = match self.own_database {
            true => Servers::start_with_own_database().await?,
            false => Servers::start().await?,
        };
        self.start_on(servers).await
    }

    /// Starts everything but the broker and the databases, and waits until it is ready.
    ///
    /// # Errors
    /// When something does not start; the error shows its log.
    pub async fn start_on(self, servers: Servers) -> anyhow::Result<Stack> {
        let smtp = SmtpSink::start().await;
        let mut stack = Stack {
            builder: self,
            servers,
            smtp,
            gateway: None,
            services: BTreeMap::new(),
            http: reqwest::Client::new(),
            ended: Vec::new(),
        };
        stack.start_gateway("127.0.0.1:0").await?;
        for service in SERVICES {
            for _ in 0..stack.builder.instances {
                stack.launch(service).await?;
            }
        }
        stack.wait_until_ready().await?;
        Ok(stack)
    }
}

impl Stack {
    /// Broker and databases.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The binary that is every service.
    pub(crate) fn program(&self) -> &Path {
        &self.builder.program
    }

    /// The mail server.
    pub fn smtp(&self) -> &SmtpSink {
        &self.smtp
    }

    /// The base URL of the first instance of `service`.
    pub fn url(&self, service: &str) -> &str {
        self.services.get(service).and_then(|instances| instances.first()).map_or("", Process::url)
    }

    /// The base URLs of all instances of `service`.
    pub fn urls(&self, service: &str) -> Vec<String> {
        self.services.get(service).into_iter().flatten().map(|instance| instance.url().to_owned()).collect()
    }

    /// The base URL of the gateway.
    pub fn gateway_url(&self) -> &str {
        self.gateway.as_ref().map_or("", Process::url)
    }

    /// The name and the process id of whatever of the gateway and the services runs.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let running = self.services.values().flatten().chain(&self.gateway);
        running.filter_map(|process| Some((process.name().to_owned(), process.id()?))).collect()
    }

    /// Starts one more instance of `service`, without waiting for it to be ready.
    ///
    /// # Errors
    /// When it does not say where it listens.
    pub async fn launch(&mut self, service: &'static str) -> anyhow::Result<()> {
        let kafka = self.servers.kafka();
        let mut arguments = vec![service.to_owned()];
        if service == "order-service" {
            arguments.push("serve".to_owned());
        }
        arguments.extend(["--brokers".to_owned(), kafka.brokers]);
        for setting in kafka.settings {
            arguments.extend(["-X".to_owned(), setting]);
        }
        arguments.extend(["--database-url".to_owned(), self.servers.database_url(service).await?]);
        arguments.extend(["--listen", "127.0.0.1:0"].map(str::to_owned));
        match service {
            "payment-service" => arguments.extend(["--gateway-url".to_owned(), self.gateway_url().to_owned()]),
            "email-service" => arguments.extend(["--smtp-url".to_owned(), self.smtp.url()]),
            _ => {}
        }
        arguments.extend(self.builder.arguments.get(service).into_iter().flatten().cloned());
        let process = Process::start(service, &self.builder.program, &arguments).await?;
        self.services.entry(service).or_default().push(process);
        Ok(())
    }

    /// Waits until every instance says that it is ready.
    ///
    /// # Errors
    /// When one is not within 120 s; the error shows its log.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        for process in self.services.values().flatten() {
            loop {
                let answer = self.http.get(format!("{}/ready", process.url())).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    break;
                }
                ensure!(Instant::now() < deadline, "{} is not ready; its log:\n{}", process.name(), process.log());
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Kills the first instance of `service` with SIGKILL.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill(&mut self, service: &'static str) -> anyhow::Result<()> {
        let log = self.take(service)?.kill().await?;
        self.ended.push(format!("--- {service}, killed\n{log}"));
        Ok(())
    }

    /// Ends the first instance of `service` with SIGTERM and waits until it has drained.
    ///
    /// # Errors
    /// When there is none, or it does not end cleanly.
    pub async fn stop(&mut self, service: &'static str) -> anyhow::Result<()> {
        let log = self.take(service)?.stop().await?;
        self.ended.push(format!("--- {service}, stopped\n{log}"));
        Ok(())
    }

    /// Kills the gateway, and starts it again at the same address with the same ledger when asked to.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill_gateway(&mut self) -> anyhow::Result<GatewayAway> {
        let gateway = self.gateway.take().context("the gateway is not running")?;
        let address = gateway.url().trim_start_matches("http://").to_owned();
        gateway.kill().await?;
        Ok(GatewayAway { address })
    }

    /// Brings the gateway back.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn revive_gateway(&mut self, away: GatewayAway) -> anyhow::Result<()> {
        self.start_gateway(&away.address).await
    }

    /// Places an order and returns its id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn place(&self, request: &OrderRequest) -> anyhow::Result<String> {
        let url = format!("{}/orders", self.url("order-service"));
        let answer = self.http.post(url).json(&request.body()).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status == 202, "the order was refused with {status}: {body}");
        body["orderId"].as_str().map(str::to_owned).context("the answer has no orderId")
    }

    /// Runs order-service's command line against this stack, with `input` on its stdin.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn order_service(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(self.program());
        command.arg("order-service").args(arguments).args(["--url", self.url("order-service")]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = piped.spawn()?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        Ok(child.wait_with_output().await?)
    }

    /// The order as it is now.
    ///
    /// # Errors
    /// When order-service does not answer.
    pub async fn order(&self, id: &str) -> anyhow::Result<Order> {
        self.get(&format!("{}/orders/{id}", self.url("order-service"))).await
    }

    /// The order once everything it set in motion is done.
    ///
    /// # Panics
    /// When that takes longer than `patience`; the message shows the order as it stands.
    pub async fn at_rest(&self, id: &str, patience: Duration) -> Order {
        eventually(patience, "order at rest", async || match self.order(id).await {
            Ok(order) if order.is_at_rest() => Ok(order),
            Ok(order) => Err(format!("{order:#?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// How many records the services have not handled yet.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn lag(&self) -> anyhow::Result<i64> {
        Ok(self.lag_and_ends().await?.0)
    }

    /// The same, and the sum of the ends of the partitions: it grows with every record.
    async fn lag_and_ends(&self) -> anyhow::Result<(i64, i64)> {
        let kafka = self.servers.kafka();
        let rows = tokio::task::spawn_blocking(move || eventctl::lag::of_groups(&kafka, GROUPS)).await??;
        Ok((rows.iter().map(|row| row.lag).sum(), rows.iter().map(|row| row.log_end_offset).sum()))
    }

    /// How many orders have not ended, and how many events no service has published yet.
    ///
    /// # Errors
    /// When a service does not answer.
    pub async fn under_way(&self) -> anyhow::Result<(usize, u64)> {
        let pending = format!("{}/orders?state=pending&limit=100", self.url("order-service"));
        let pending: Value = self.get(&pending).await?;
        Ok((pending["orders"].as_array().map_or(0, Vec::len), self.unpublished().await?))
    }

    async fn unpublished(&self) -> anyhow::Result<u64> {
        let mut unpublished = 0;
        for service in SERVICES {
            let desk: Value = self.get(&format!("{}/inspect/-", self.url(service))).await?;
            unpublished += desk["outbox"]["rows"].as_u64().context("/inspect says nothing of the outbox")?;
        }
        Ok(unpublished)
    }

    /// Waits until every record of every topic is handled, and so is what handling them said.
    ///
    /// # Panics
    /// When that takes longer than `patience`.
    pub async fn wait_until_handled(&self, patience: Duration) {
        // What handling the last record said was in an outbox by then. No outbox holds anything, and no record came since.
        let mut quiet_at = None;
        eventually(patience, "rest", async || {
            let ((lag, ends), unpublished) = match (self.lag_and_ends().await, self.unpublished().await) {
                (Ok(lag), Ok(unpublished)) => (lag, unpublished),
                (Err(error), _) | (_, Err(error)) => return Err(format!("{error:#}")),
            };
            let before = std::mem::replace(&mut quiet_at, (lag == 0 && unpublished == 0).then_some(ends));
            if before.is_some() && before == quiet_at {
                return Ok(());
            }
            Err(format!("a lag of {lag}, {unpublished} events unpublished, {ends} records"))
        })
        .await;
    }

    /// The gateway's ledger: every charge it ever made, as JSON.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn charges(&self) -> anyhow::Result<Vec<Value>> {
        self.get(&format!("{}/charges", self.gateway_url())).await
    }

    /// Charges of one order.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub async fn charges_of(&self, order: &str) -> anyhow::Result<Vec<Value>> {
        let charges = self.charges().await?;
        Ok(charges.into_iter().filter(|charge| charge["idempotencyKey"] == order).collect())
    }

    /// Sets the gateway's faults.
    ///
    /// # Errors
    /// When the gateway does not take them.
    pub async fn fault_gateway(&self, faults: Value) -> anyhow::Result<()> {
        let url = format!("{}/faults", self.gateway_url());
        self.http.put(url).json(&faults).send().await?.error_for_status()?;
        Ok(())
    }

    /// The stock of `sku`.
    ///
    /// # Errors
    /// When inventory-service does not answer.
    pub async fn stock(&self, sku: &str) -> anyhow::Result<StockLevel> {
        self.get(&format!("{}/stock/{sku}", self.url("inventory-service"))).await
    }

    /// The logs of all services, for a failed test.
    pub fn logs(&self) -> String {
        let logs = self.services.values().flatten().map(|process| format!("--- {}\n{}", process.name(), process.log()));
        self.ended.iter().cloned().chain(logs).collect::<Vec<_>>().join("\n")
    }

    async fn start_gateway(&mut self, address: &str) -> anyhow::Result<()> {
        let ledger = self.servers.folder().join("gateway-ledger.jsonl");
        let mut arguments = vec![GATEWAY.to_owned(), "--listen".to_owned(), address.to_owned(), "--ledger".to_owned()];
        arguments.push(ledger.display().to_string());
        arguments.extend(self.builder.arguments.get(GATEWAY).into_iter().flatten().cloned());
        self.gateway = Some(Process::start(GATEWAY, &self.builder.program, &arguments).await?);
        Ok(())
    }

    fn take(&mut self, service: &'static str) -> anyhow::Result<Process> {
        match self.services.get_mut(service) {
            Some(instances) if !instances.is_empty() => Ok(instances.remove(0)),
            _ => bail!("no instance of {service} runs"),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        let answer = self.http.get(url).send().await?.error_for_status()?;
        answer.json().await.with_context(|| format!("{url} answers something else"))
    }
}

/// Where the killed gateway listened.
pub struct GatewayAway {
    address: String,
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A test that passes shows its processes' logs on demand.
        if std::thread::panicking() || std::env::var_os("E2E_LOGS").is_some() {
            eprintln!("{}", self.logs());
        }
    }
}
