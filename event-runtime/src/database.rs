//! One code path for PostgreSQL and SQLite: the same SQL text (`$1` placeholders, TEXT, BIGINT and BYTEA/BLOB columns,
//! ids as text, times as microseconds since 1970) runs on both through sqlx's `Any` driver.
//!
//! To lock a row on both, write to it first: `UPDATE … SET version = version + 1 WHERE id = $1 RETURNING …`.

mod migrate;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{
    Any, AnyConnection, AnyPool, Connection as _, Executor as _, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
};
use tokio::sync::Notify;

use crate::{Clock, Outbox};

pub use migrate::{MigrateError, Migration};

/// Which database is behind a [`Database`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, for production.
    Postgres,
    /// SQLite in WAL mode, the embedded default. One connection writes, so there is one writer.
    Sqlite,
}

/// A database URL that cannot be used. Never shows the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither PostgreSQL nor SQLite.
    #[error("the database URL must begin with postgres:// or sqlite:, not {0:?}")]
    Scheme(String),
    /// The driver cannot read it.
    #[error("the database URL cannot be read")]
    Malformed(#[source] sqlx::Error),
}

/// A connection pool, and the bell that tells the relay of new outbox rows.
#[derive(Clone)]
pub struct Database {
    writers: AnyPool,
    readers: AnyPool,
    dialect: Dialect,
    /// Kept for the connection that listens for notifications; may hold a password.
    url: Arc<str>,
    committed: Arc<Notify>,
}

impl Database {
    /// A pool that connects when it is first used.
    ///
    /// A SQLite file is created when it is missing (its folder is not).
    ///
    /// # Errors
    /// When the URL is for no database we know. An unreachable server is no error here.
    pub fn connect_lazy(url: &str) -> Result<Database, DatabaseUrlError> {
        install_default_drivers();
        let (writers, readers, dialect) = match url.split(':').next().unwrap_or_default() {
            "postgres" | "postgresql" => {
                let pool = options(10).connect_lazy(url).map_err(DatabaseUrlError::Malformed)?;
                (pool.clone(), pool, Dialect::Postgres)
            }
            "sqlite" => {
                let (writers, readers) = sqlite_pools(url).map_err(DatabaseUrlError::Malformed)?;
                (writers, readers, Dialect::Sqlite)
            }
            other => return Err(DatabaseUrlError::Scheme(other.chars().take(20).collect())),
        };
        Ok(Database { writers, readers, dialect, url: url.into(), committed: Arc::new(Notify::new()) })
    }

    /// For reads outside a transaction. On SQLite these connections refuse to write.
    pub fn pool(&self) -> &AnyPool {
        &self.readers
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Brings the runtime's tables, and then the service's, up to date. Any number of instances may do so at once.
    ///
    /// # Errors
    /// When a step fails (then nothing of this call was applied) or the database cannot be reached.
    pub async fn migrate(&self, service: &[Migration]) -> Result<(), MigrateError> {
        migrate::run(self, service, Clock::system().now()).await
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.writers.acquire().await?.ping().await
    }

    /// Begins a transaction. On SQLite it takes the write lock at once (`BEGIN IMMEDIATE`): a transaction that reads
    /// first and writes later would fail with SQLITE_BUSY instead of waiting.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        let inner = match self.dialect {
            Dialect::Postgres => self.writers.begin().await?,
            Dialect::Sqlite => self.writers.begin_with("BEGIN IMMEDIATE").await?,
        };
        Ok(Tx { inner, dialect: self.dialect })
    }

    /// Writes `outbox` into the transaction, commits, and wakes the relay.
    ///
    /// # Errors
    /// When a statement or the commit fails; then nothing is stored.
    pub async fn commit(&self, mut tx: Tx, outbox: Outbox) -> Result<(), sqlx::Error> {
        let wake = !outbox.is_empty();
        outbox.store(&mut tx).await?;
        tx.commit().await?;
        if wake {
            self.committed.notify_one();
        }
        Ok(())
    }

    /// Closes every connection once it is free.
    pub async fn close(&self) {
        self.writers.close().await;
        self.readers.close().await;
    }

    pub(crate) fn committed(&self) -> &Notify {
        &self.committed
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// An open transaction. Dropping it rolls back.
pub struct Tx {
    inner: Transaction<'static, Any>,
    dialect: Dialect,
}

impl Tx {
    /// The connection, for `sqlx::query(…).execute(tx.conn())`.
    pub fn conn(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Commits. With an outbox, use [`Database::commit`].
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }

    /// Rolls back and waits until that is done.
    ///
    /// # Errors
    /// When the connection is lost; the database then rolls back by itself.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.inner.rollback().await
    }
}

fn options(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(10))
}

/// One connection that writes, and a few that read beside it, as WAL allows: a GET never waits for a handler, and a read
/// while a transaction is open is no deadlock. A database in memory has one connection for both.
fn sqlite_pools(url: &str) -> Result<(AnyPool, AnyPool), sqlx::Error> {
    const SETUP: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;";
    const SETUP_READER: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA query_only = ON;";
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let mut url = url.to_owned();
    if !in_memory && !url.contains("mode=") {
        url.push_str(if url.contains('?') { "&mode=rwc" } else { "?mode=rwc" });
    }
    let pool = |options: AnyPoolOptions, setup: &'static str| {
        // A local file needs no test before each use.
        let options = options.test_before_acquire(false);
        options
            .after_connect(move |conn, _| Box::pin(async move { conn.execute(setup).await.map(drop) }))
            .connect_lazy(&url)
    };
    if in_memory {
        let only = pool(options(1).idle_timeout(None).max_lifetime(None), SETUP)?;
        return Ok((only.clone(), only));
    }
    Ok((pool(options(1), SETUP)?, pool(options(4), SETUP_READER)?))
}
