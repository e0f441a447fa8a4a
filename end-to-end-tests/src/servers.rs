//! Kafka and databases under the stack: embedded, or real.

use std::path::Path;

use anyhow::{Context, bail};
use event_runtime::config::KafkaConfig;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use test_support::{MockKafka, RealKafka};
use uuid::Uuid;

use crate::postgres::OwnPostgres;

/// The broker and the databases of one test. They go when this is dropped.
pub struct Servers {
    kafka: Kafka,
    databases: Databases,
    folder: TempDir,
}

enum Kafka {
    Embedded(MockKafka),
    Real(RealKafka),
    /// Somebody else's, with all topics.
    Given(KafkaConfig),
}

enum Databases {
    Sqlite,
    Postgres {
        server: String,
        prefix: String,
    },
    /// A server that the test may kill.
    Own(OwnPostgres),
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

    /// The same, with a PostgreSQL of the test's own where servers are real.
    ///
    /// # Errors
    /// When a server cannot be started; the message shows what it printed.
    pub async fn start_with_own_database() -> anyhow::Result<Servers> {
        let mut servers = Servers::start().await?;
        if servers.are_real() {
            servers.databases = Databases::Own(OwnPostgres::start().await?);
        }
        Ok(servers)
    }

    /// Servers that run already and are left running: this Kafka, and databases called `prefix` and the service on the
    /// PostgreSQL server, or SQLite files where there is none.
    ///
    /// # Errors
    /// When there is no folder for what the services keep in files.
    pub fn given(kafka: KafkaConfig, server: Option<String>, prefix: &str) -> anyhow::Result<Servers> {
        let databases = match server {
            Some(server) => Databases::Postgres { server, prefix: prefix.to_owned() },
            None => Databases::Sqlite,
        };
        Ok(Servers { kafka: Kafka::Given(kafka), databases, folder: tempfile::tempdir()? })
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
            Kafka::Given(config) => config.clone(),
        }
    }

    /// The embedded broker, to inject faults.
    pub fn embedded(&self) -> Option<&MockKafka> {
        match &self.kafka {
            Kafka::Embedded(broker) => Some(broker),
            Kafka::Real(_) | Kafka::Given(_) => None,
        }
    }

    /// A folder that goes with the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The PostgreSQL that the test may kill, if it has one.
    pub fn own_database(&self) -> Option<&OwnPostgres> {
        match &self.databases {
            Databases::Own(server) => Some(server),
            Databases::Sqlite | Databases::Postgres { .. } => None,
        }
    }

    /// The broker that the test may kill, if it has one.
    pub fn own_broker(&self) -> Option<&RealKafka> {
        match &self.kafka {
            Kafka::Real(broker) => Some(broker),
            Kafka::Embedded(_) | Kafka::Given(_) => None,
        }
    }

    /// The database of `service`, created if needed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn database_url(&self, service: &str) -> anyhow::Result<String> {
        let service = service.replace('-', "_");
        match &self.databases {
            Databases::Sqlite => Ok(format!("sqlite:{}", self.folder.path().join(format!("{service}.db")).display())),
            Databases::Postgres { server, prefix } => created(server, &format!("{prefix}_{service}")).await,
            Databases::Own(server) => created(server.url(), &service).await,
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
            Kafka::Given(_) => bail!("the broker is somebody else's"),
        }
        Ok(())
    }
}

/// The database `name` on `server`, created if needed.
async fn created(server: &str, name: &str) -> anyhow::Result<String> {
    let mut admin = PgConnection::connect(server).await.with_context(|| format!("no database server for {name}"))?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut admin)
        .await?;
    if !exists {
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
    }
    let (base, _) = server.rsplit_once('/').context("the server's URL has no database name")?;
    Ok(format!("{base}/{name}"))
}
