//! Kafka and databases under the stack: embedded, or real.

use std::path::Path;

use anyhow::{Context, bail};
use event_runtime::config::KafkaConfig;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use test_support::{MockKafka, RealKafka};
use uuid::Uuid;

/// The broker and the databases of one test. They go when this is dropped.
pub struct Servers {
    kafka: Kafka,
    databases: Databases,
    folder: TempDir,
}

enum Kafka {
    Embedded(MockKafka),
    Real(RealKafka),
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
                let kafka = Kafka::Real(RealKafka::start().await);
                Ok(Servers { kafka, databases: Databases::Postgres { server, prefix }, folder })
            }
            Err(_) => Ok(Servers { kafka: Kafka::Embedded(MockKafka::start(1)), databases: Databases::Sqlite, folder }),
        }
    }

    /// Whether Kafka and PostgreSQL are real.
    pub fn are_real(&self) -> bool {
        matches!(self.kafka, Kafka::Real(_))
    }

    /// How clients reach Kafka.
    pub fn kafka(&self) -> KafkaConfig {
        match &self.kafka {
            Kafka::Embedded(broker) => broker.config(),
            Kafka::Real(broker) => broker.config(),
        }
    }

    /// The embedded broker, to inject faults.
    pub fn embedded(&self) -> Option<&MockKafka> {
        match &self.kafka {
            Kafka::Embedded(broker) => Some(broker),
            Kafka::Real(_) => None,
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
    /// When there is none.
    pub async fn restart_kafka(&self) -> anyhow::Result<()> {
        match &self.kafka {
            Kafka::Real(broker) => broker.restart().await,
            Kafka::Embedded(_) => bail!("the embedded broker keeps nothing, so it cannot be restarted"),
        }
        Ok(())
    }
}
