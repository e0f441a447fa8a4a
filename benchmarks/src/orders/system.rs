//! The services as processes, and what they use.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;
use end_to_end_tests::{OrderRequest, Servers, Stack, StackBuilder};
use event_runtime::topics::TopicSpec;
use serde_json::json;
use shared_events::topics::{GROUPS, ORDER_TIMELINE_GROUP, TOPICS};

use crate::{
    measure::Process,
    site::{PATIENCE, Site},
};

/// Orders take turns over these, so that no row of the stock is in all of them.
const SKUS: [&str; 8] = [
    "COFFEE-1KG",
    "TEA-GREEN-250G",
    "MUG-BLUE",
    "GRINDER-HAND",
    "FILTER-PAPER-100",
    "KETTLE-GOOSENECK",
    "SCALE-POCKET",
    "FRENCH-PRESS-1L",
];
/// Of each: enough for any run.
const STOCK: u64 = 1_000_000;

pub struct System {
    stack: Stack,
    parts: Vec<Part>,
    database: &'static str,
}

/// Something that uses CPU time.
struct Part {
    name: String,
    process: Process,
    /// Whether it is part of the system, and not what drives it.
    counts: bool,
}

/// CPU time of each part, where it is known.
pub struct Costs(Vec<Option<Duration>>);

impl System {
    /// Starts all services on new topics and databases.
    pub async fn start(site: &Site) -> anyhow::Result<System> {
        let specs: Vec<TopicSpec> = TOPICS
            .iter()
            .map(|topic| TopicSpec::from(*topic))
            .chain(GROUPS.iter().flat_map(TopicSpec::dead_letters_of))
            .chain(
                GROUPS
                    .iter()
                    .flat_map(|group| group.topics.iter().map(|topic| TopicSpec::quarantine(*topic, group.name))),
            )
            .collect();
        site.make_topics(&specs).await?;
        GROUPS.iter().map(|group| group.name).chain([ORDER_TIMELINE_GROUP]).for_each(|name| site.removes_group(name));
        let server = if site.is_embedded() { None } else { Some(site.databases().server()?.to_owned()) };
        let database = if server.is_some() { "postgres" } else { "sqlite" };
        let prefix = site.databases().prefix();
        for service in ["order", "payment", "inventory", "email"] {
            site.databases().removes(format!("{prefix}_{service}_service"));
        }
        let servers = Servers::given(site.kafka.clone(), server, &prefix)?;
        // Beside this program, as cargo builds them.
        let program = std::env::current_exe()?.with_file_name("order-system");
        let stack = StackBuilder::new(program).start_on(servers).await?;
        let parts = parts(&stack);
        let system = System { stack, parts, database };
        system.fill_the_shelves().await?;
        Ok(system)
    }

    async fn fill_the_shelves(&self) -> anyhow::Result<()> {
        let http = reqwest::Client::new();
        for sku in SKUS {
            let url = format!("{}/stock/{sku}", self.stack.url("inventory-service"));
            http.put(url).json(&json!({ "available": STOCK })).send().await?.error_for_status()?;
        }
        Ok(())
    }

    pub fn database(&self) -> &'static str {
        self.database
    }

    /// Places an order that can be fulfilled, and returns its id.
    pub async fn place(&self, number: u64) -> anyhow::Result<String> {
        self.stack.place(&OrderRequest::of(SKUS[number as usize % SKUS.len()])).await
    }

    /// Waits until all is done that so many orders set in motion: their mails are there, no event waits, no record is
    /// unhandled.
    pub async fn wait_until_done(&self, orders: u64) -> anyhow::Result<()> {
        super::grows_to("mail", orders, || self.stack.smtp().received() as u64).await?;
        let deadline = Instant::now() + PATIENCE;
        while self.stack.lag().await? > 0 || self.stack.under_way().await?.1 > 0 {
            ensure!(Instant::now() < deadline, "records were not handled within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Every order was charged once, and its customer got one mail.
    pub async fn check(&self, orders: u64) -> anyhow::Result<()> {
        let charges = self.stack.charges().await?.len() as u64;
        ensure!(charges == orders, "{orders} orders were charged {charges} times");
        let copies = self.stack.smtp().copies();
        ensure!(copies.len() as u64 == orders, "of {orders} orders {} have their mail", copies.len());
        let doubled = copies.values().filter(|copies| **copies > 1).count();
        ensure!(doubled == 0, "{doubled} mails came twice");
        Ok(())
    }

    /// The CPU time used so far.
    pub fn costs(&self) -> Costs {
        Costs(self.parts.iter().map(|part| part.process.cpu_time_with_children()).collect())
    }

    /// CPU ms an order of each part, and of the whole system.
    pub fn each(&self, costs: &Costs, orders: u64) -> Vec<(String, f64)> {
        let used = self.parts.iter().zip(&costs.0);
        let mut each: Vec<_> =
            used.filter_map(|(part, used)| Some((part.name.clone(), ms((*used)?, orders)))).collect();
        each.push(("the system".to_owned(), self.total(costs, orders)));
        each
    }

    /// CPU ms an order of the system: what drives it is left out, and what is not known.
    pub fn total(&self, costs: &Costs, orders: u64) -> f64 {
        let used = self.parts.iter().zip(&costs.0).filter(|(part, _)| part.counts);
        ms(used.filter_map(|(_, used)| *used).sum(), orders)
    }

    /// MiB of each process, the most it ever had.
    pub fn peak_memory(&self) -> Vec<(String, f64)> {
        // What PostgreSQL shares among its processes cannot be told apart.
        let parts = self.parts.iter().filter(|part| part.counts && part.name != POSTGRES);
        parts.filter_map(|part| Some((part.name.clone(), part.process.peak_memory()?))).collect()
    }
}

const POSTGRES: &str = "PostgreSQL";

fn parts(stack: &Stack) -> Vec<Part> {
    let part = |name: &str, pid, counts| Part { name: name.to_owned(), process: Process::numbered(pid), counts };
    let services = stack.processes().into_iter().map(|(name, pid)| part(&name, pid, true));
    let kafka = server("KAFKA_DIR", "kafka.pid").map(|pid| part("Kafka", pid, true));
    let postgres = server("POSTGRES_DIR", "data/postmaster.pid").map(|pid| part(POSTGRES, pid, true));
    let this = part("this process (places orders, takes mails, keeps logs)", std::process::id(), false);
    services.chain(kafka).chain(postgres).chain([this]).collect()
}

/// The process of a server that this project's scripts started, where the variable says in which folder.
fn server(folder: &str, pid_file: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("{}/{pid_file}", std::env::var(folder).ok()?)).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn ms(used: Duration, orders: u64) -> f64 {
    used.as_secs_f64() * 1e3 / orders as f64
}

impl Costs {
    pub fn since(&self, before: &Costs) -> Costs {
        let used = self.0.iter().zip(&before.0);
        Costs(used.map(|(now, before)| Some((*now)?.saturating_sub((*before)?))).collect())
    }
}
