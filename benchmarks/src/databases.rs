//! Databases of a run, which go when it ends.

use std::sync::Mutex;

use anyhow::Context;
use event_runtime::{Database, Migration, database::Dialect};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// Makes databases, and removes them.
pub struct Databases {
    /// The URL of a database on the server where others may be made.
    postgres: Option<String>,
    run: String,
    folder: TempDir,
    made: Mutex<Vec<String>>,
}

/// A database of its own.
#[derive(Clone, Debug)]
pub struct Scratch {
    pub url: String,
    name: String,
}

impl Databases {
    pub fn new(postgres: Option<String>, run: &str) -> anyhow::Result<Databases> {
        let folder = TempDir::new().context("there is no folder for SQLite's files")?;
        Ok(Databases { postgres, run: run.to_owned(), folder, made: Mutex::default() })
    }

    /// A database with the runtime's tables and those of `schema`.
    pub async fn make(&self, dialect: Dialect, schema: &[Migration]) -> anyhow::Result<Scratch> {
        let scratch = self.named();
        let scratch = match dialect {
            Dialect::Postgres => {
                self.on_the_server(&format!("CREATE DATABASE {}", scratch.name)).await?;
                Scratch { url: self.url_of(&scratch.name)?, ..scratch }
            }
            Dialect::Sqlite => {
                let file = self.folder.path().join(format!("{}.db", scratch.name));
                Scratch { url: format!("sqlite://{}", file.display()), ..scratch }
            }
        };
        let database = Database::connect_lazy(&scratch.url)?;
        database.migrate(schema).await?;
        // Nobody may be connected to a database that is copied.
        database.close().await;
        Ok(scratch)
    }

    /// A copy of a PostgreSQL database that nobody is connected to.
    pub async fn copy(&self, original: &Scratch) -> anyhow::Result<Scratch> {
        let scratch = self.named();
        self.on_the_server(&format!("CREATE DATABASE {} TEMPLATE {}", scratch.name, original.name)).await?;
        Ok(Scratch { url: self.url_of(&scratch.name)?, ..scratch })
    }

    /// What the names of all databases of this run begin with.
    pub fn prefix(&self) -> String {
        format!("benchmark_{}", self.run)
    }

    /// Has a database removed at the end that somebody else makes.
    pub fn removes(&self, name: String) {
        self.made.lock().expect("nobody panics while holding it").push(name);
    }

    /// Removes one before the run ends: each may hold hundreds of megabytes.
    pub async fn remove(&self, scratch: &Scratch) -> anyhow::Result<()> {
        match scratch.url.strip_prefix("sqlite://") {
            Some(file) => Ok(std::fs::remove_file(file)?),
            None => self.on_the_server(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", scratch.name)).await,
        }
    }

    /// Removes all that are left.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let made = std::mem::take(&mut *self.made.lock().expect("nobody panics while holding it"));
        // The files of SQLite go with their folder.
        if self.postgres.is_some() {
            for name in made {
                self.on_the_server(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
            }
        }
        Ok(())
    }

    fn named(&self) -> Scratch {
        let mut made = self.made.lock().expect("nobody panics while holding it");
        let name = format!("{}_{}", self.prefix(), made.len());
        made.push(name.clone());
        Scratch { name, url: String::new() }
    }

    async fn on_the_server(&self, statement: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.server()?).await.context("PostgreSQL cannot be reached")?;
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
        done.with_context(|| statement.to_owned())?;
        Ok(connection.close().await?)
    }

    fn url_of(&self, name: &str) -> anyhow::Result<String> {
        let (base, _) = self.server()?.rsplit_once('/').context("the database URL names no database")?;
        Ok(format!("{base}/{name}"))
    }

    /// Where databases are made.
    pub fn server(&self) -> anyhow::Result<&str> {
        self.postgres.as_deref().context("this workload needs PostgreSQL: give --database-url, or set DATABASE_URL")
    }
}
