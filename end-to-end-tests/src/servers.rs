//! Kafka and databases under the stack: embedded, or real.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use event_runtime::config::KafkaConfig;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use test_support::MockKafka;
use tokio::process::Command;
use uuid::Uuid;

/// The broker and the databases of one test. They go when this is dropped.
pub struct Servers {
    kafka: Kafka,
    databases: Databases,
    folder: TempDir,
}

enum Kafka {
    Embedded(MockKafka),
    Real { config: KafkaConfig, folder: PathBuf },
}

enum Databases {
    Sqlite,
    Postgres { server: String, prefix: String },
}

impl Servers {
    /// Real servers where `TEST_DATABASE_URL` is set, embedded ones otherwise.
    ///
    /// # Errors
    /// When a server cannot be started; the message shows what it printed.
    pub async fn start() -> anyhow::Result<Servers> {
        let folder = tempfile::tempdir()?;
        match std::env::var("TEST_DATABASE_URL") {
            Ok(server) => {
                let prefix = format!("e2e_{}", Uuid::now_v7().simple());
                let kafka_folder = folder.path().join("kafka");
                let config = start_kafka(&kafka_folder).await?;
                let kafka = Kafka::Real { config, folder: kafka_folder };
                Ok(Servers { kafka, databases: Databases::Postgres { server, prefix }, folder })
            }
            Err(_) => Ok(Servers { kafka: Kafka::Embedded(MockKafka::start(1)), databases: Databases::Sqlite, folder }),
        }
    }

    /// Whether Kafka and PostgreSQL are real.
    pub fn are_real(&self) -> bool {
        matches!(self.kafka, Kafka::Real { .. })
    }

    /// How clients reach Kafka.
    pub fn kafka(&self) -> KafkaConfig {
        match &self.kafka {
            Kafka::Embedded(broker) => broker.config(),
            Kafka::Real { config, .. } => config.clone(),
        }
    }

    /// The embedded broker, to inject faults.
    pub fn embedded(&self) -> Option<&MockKafka> {
        match &self.kafka {
            Kafka::Embedded(broker) => Some(broker),
            Kafka::Real { .. } => None,
        }
    }

    /// A folder that goes with the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The database of `service`, created if needed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn database_url(&self, service: &str) -> anyhow::Result<String> {
        match &self.databases {
            Databases::Sqlite => Ok(format!("sqlite:{}", self.folder.path().join(format!("{service}.db")).display())),
            Databases::Postgres { server, prefix } => {
                let name = format!("{prefix}_{}", service.replace('-', "_"));
                let mut admin = PgConnection::connect(server).await.context("TEST_DATABASE_URL does not answer")?;
                let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                    .bind(&name)
                    .fetch_one(&mut admin)
                    .await?;
                if !exists {
                    let create = format!("CREATE DATABASE {name}");
                    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&mut admin).await?;
                }
                let (base, _) = server.rsplit_once('/').context("TEST_DATABASE_URL has no database name")?;
                Ok(format!("{base}/{name}"))
            }
        }
    }

    /// Restarts the real broker; its data stays.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart_kafka(&self) -> anyhow::Result<()> {
        match &self.kafka {
            Kafka::Real { folder, .. } => kafka_script("restart", folder).await.map(drop),
            Kafka::Embedded(_) => bail!("the embedded broker keeps nothing, so it cannot be restarted"),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Kafka::Real { folder, .. } = &self.kafka {
            let stopped = std::process::Command::new(script()).arg("stop").arg("--dir").arg(folder).output();
            if !stopped.as_ref().is_ok_and(|output| output.status.success()) {
                tracing::error!(?stopped, "the test's Kafka broker did not stop");
            }
        }
    }
}

async fn start_kafka(folder: &Path) -> anyhow::Result<KafkaConfig> {
    let printed = kafka_script("start", folder).await?;
    let brokers = printed
        .lines()
        .find_map(|line| line.strip_prefix("export KAFKA_BROKERS="))
        .with_context(|| format!("scripts/kafka.sh did not print KAFKA_BROKERS but:\n{printed}"))?;
    Ok(KafkaConfig { brokers: brokers.trim_matches(['"', '\'']).to_owned(), settings: Vec::new() })
}

async fn kafka_script(verb: &str, folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(script()).arg(verb).arg("--dir").arg(folder).output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "scripts/kafka.sh {verb} failed:\n{stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh")
}
