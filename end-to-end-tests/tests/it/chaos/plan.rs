//! What breaks when.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use end_to_end_tests::Stack;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::time::sleep;

use super::{noise::Noise, placing::Placing};

const SERVICES: [&str; 4] = ["order-service", "payment-service", "inventory-service", "email-service"];

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// SIGKILL, and another instance at once.
    KillAndReplace(&'static str),
    /// SIGKILL; another instance comes with the next action on this service, or at the end.
    Kill(&'static str),
    /// SIGTERM, and another instance.
    Stop(&'static str),
    CrashBroker,
    RestartBroker,
    CrashDatabase,
    RestartDatabase,
    /// The gateway is away for so many milliseconds.
    GatewayAway(u64),
    Duplicates,
    Poison,
}

/// Decides by a seed; carries out.
pub struct Plan {
    random: StdRng,
    until: Instant,
    done: BTreeMap<&'static str, usize>,
}

impl Plan {
    pub fn new(random: StdRng, until: Instant) -> Plan {
        Plan { random, until, done: BTreeMap::new() }
    }

    /// The next action, when its time has come; none when it is over. Only `real` servers can be restarted.
    pub async fn next(&mut self, real: bool) -> Option<Action> {
        // Chaos has its own beat: this waits for nothing.
        sleep(Duration::from_millis(self.random.random_range(300..1500))).await;
        let service = *SERVICES.choose(&mut self.random).expect("there are services");
        let action = match self.random.random_range(0..100) {
            0..30 => Action::KillAndReplace(service),
            30..42 => Action::Kill(service),
            42..47 => Action::Stop(service),
            47..50 if real => Action::CrashBroker,
            50..53 if real => Action::RestartBroker,
            53..58 if real => Action::CrashDatabase,
            58..62 if real => Action::RestartDatabase,
            62..68 => Action::GatewayAway(self.random.random_range(100..4000)),
            68..85 => Action::Duplicates,
            _ => Action::Poison,
        };
        (Instant::now() < self.until).then_some(action)
    }

    pub async fn carry_out(&mut self, action: Action, stack: &mut Stack, noise: &mut Noise, placing: &Placing) {
        let name = match action {
            Action::KillAndReplace(service) | Action::Kill(service) => {
                // One is left to share the work, unless the plan says otherwise twice in a row.
                if stack.urls(service).is_empty() {
                    stack.launch(service).await.unwrap();
                }
                stack.kill(service).await.unwrap();
                if matches!(action, Action::KillAndReplace(_)) {
                    self.complete(service, stack).await;
                }
                "kills"
            }
            Action::Stop(service) => {
                if !stack.urls(service).is_empty() {
                    stack.stop(service).await.unwrap();
                }
                self.complete(service, stack).await;
                "stops"
            }
            Action::CrashBroker => {
                let broker = stack.servers().own_broker().expect("only real servers crash");
                broker.kill().await;
                broker.come_back().await;
                "broker restarts"
            }
            Action::RestartBroker => {
                stack.servers().restart_kafka().await.unwrap();
                "broker restarts"
            }
            Action::CrashDatabase => {
                stack.servers().own_database().expect("only real servers crash").crash().await.unwrap();
                "database restarts"
            }
            Action::RestartDatabase => {
                stack.servers().own_database().expect("only real servers restart").restart().await.unwrap();
                "database restarts"
            }
            Action::GatewayAway(milliseconds) => {
                let away = stack.kill_gateway().await.unwrap();
                sleep(Duration::from_millis(milliseconds)).await;
                stack.revive_gateway(away).await.unwrap();
                "gateway kills"
            }
            Action::Duplicates => {
                noise.duplicate(&mut self.random).await;
                "times duplicates"
            }
            Action::Poison => {
                noise.poison(&mut self.random).await;
                "times poison"
            }
        };
        placing.instances_changed(stack);
        *self.done.entry(name).or_default() += 1;
    }

    /// Brings back whoever is missing.
    pub async fn mend(&self, stack: &mut Stack, placing: &Placing) {
        for service in SERVICES {
            self.complete(service, stack).await;
        }
        placing.instances_changed(stack);
        stack.wait_until_ready().await.unwrap();
    }

    async fn complete(&self, service: &'static str, stack: &mut Stack) {
        while stack.urls(service).len() < 2 {
            stack.launch(service).await.unwrap();
        }
    }

    /// How often what was done.
    pub fn tally(&self) -> String {
        let counts: Vec<_> = self.done.iter().map(|(name, count)| format!("{count} {name}")).collect();
        counts.join(", ")
    }
}
