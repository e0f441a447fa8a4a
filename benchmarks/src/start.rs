//! A service that has nothing to do: how soon it is ready, and what it takes while it waits. The service is a
//! process of its own (`idle-service`) with one transactional handler: what the runtime takes, without any service's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use event_runtime::{
    ConsumerBuilder, Delivery, HandlerError, Outbox, Service, TransactionalHandler, Tx,
    cli::serve,
    config::{KafkaConfig, ServiceConfig},
    database::Dialect,
    service::App,
    topics::TopicSpec,
};
use serde_json::json;
use shared_events::{Event as _, Topic};
use tokio::time::sleep;

use crate::{
    databases::Scratch,
    figure::{Results, Round, Subject},
    measure::Process,
    site::{PATIENCE, Site},
    topics::{Bought, topic::START},
};

type Order = Bought<START>;

/// The service and its group: one name in all runs, since the runtime's services have theirs in the code.
const NAME: &str = "benchmark-idle";
const SETTLES: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct Options {
    /// How long the idle service is watched
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs the workload.
///
/// # Errors
/// When the service is not ready in time.
pub async fn run(site: &Site, options: &Options) -> anyhow::Result<Vec<Results>> {
    let settings = json!({ "seconds": options.seconds, "embedded": site.is_embedded(), "database": "postgres" });
    site.make_topics(&[Order::TOPIC.into(), TopicSpec::dead_letters(Order::TOPIC, NAME)]).await?;
    site.removes_group(NAME);
    let scratch = site.databases().make(Dialect::Postgres, &[]).await?;
    let measurements = ["ms to ready", "MiB resident", "% of a core"];
    let mut results = measurements.map(|unit| Results::new("start", unit, settings.clone()));
    let ours = Subject::runtime("idle service");
    site.steps(site.rounds.into());
    for _ in 0..site.rounds {
        site.step("starting a service");
        let service = Running::start(&site.kafka, &scratch)?;
        let figures = service.watch(Duration::from_secs(options.seconds)).await?;
        for (value, results) in figures.into_iter().zip(&mut results) {
            results.add(&ours, Round { value, ..Round::default() });
        }
        site.step_done();
    }
    Ok(results.into())
}

/// Runs the service that is measured, in its process.
///
/// # Errors
/// When it cannot run.
pub async fn serve_idle(config: ServiceConfig) -> anyhow::Result<u8> {
    const TOPICS: &[Topic] = &[Order::TOPIC];
    let telemetry = config.telemetry.clone();
    let work = async {
        let builder = Service::bind(NAME, 0, config).await?;
        let consumers = vec![ConsumerBuilder::new(NAME).transactional(builder.database(), Nothing)];
        let routes = Default::default();
        builder
            .build(App { routes, consumers, topics: TOPICS, migrations: &[], on_published: None })
            .run_until_signal()
            .await
    };
    serve(NAME, &telemetry, work).await
}

/// The process of a service. It ends when this is dropped.
struct Running {
    process: Child,
    started: Instant,
    ready_at: String,
}

impl Running {
    fn start(kafka: &KafkaConfig, scratch: &Scratch) -> anyhow::Result<Running> {
        // Beside this program, as cargo builds them.
        let program = std::env::current_exe()?.with_file_name("idle-service");
        // Given out by the system, and free again: nobody else asks for one in between.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(&program);
        command.args(["--brokers", &kafka.brokers, "--database-url", &scratch.url, "--listen", &address]);
        command.args(kafka.settings.iter().flat_map(|setting| ["-X", setting]));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let process = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Running { process, started, ready_at: format!("http://{address}/ready") })
    }

    /// Milliseconds to ready, and then MiB and per cent of a core while it waits.
    async fn watch(&self, time: Duration) -> anyhow::Result<[f64; 3]> {
        let http = reqwest::Client::new();
        let ready = async || http.get(&self.ready_at).send().await.is_ok_and(|answer| answer.status().is_success());
        while !ready().await {
            anyhow::ensure!(self.started.elapsed() < PATIENCE, "the service was not ready within {PATIENCE:?}");
            sleep(Duration::from_millis(2)).await;
        }
        let to_ready = self.started.elapsed();
        // What a start leaves to do is no part of being idle.
        sleep(SETTLES).await;
        let process = Process::numbered(self.process.id());
        let (before, began) = (process.cpu_time().context("the system does not say what CPU it used")?, Instant::now());
        sleep(time).await;
        let used = process.cpu_time().unwrap_or_default().saturating_sub(before);
        let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
        let memory = process.memory().context("the system does not say how much memory it has")?;
        Ok([to_ready.as_secs_f64() * 1e3, memory, share * 100.0])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Has nothing to do.
struct Nothing;

impl TransactionalHandler for Nothing {
    type Event = Order;

    async fn handle(&self, _: &mut Tx, _: &mut Outbox, _: &Delivery<Order>) -> Result<(), HandlerError> {
        Ok(())
    }
}
