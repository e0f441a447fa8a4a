//! One code path for PostgreSQL and SQLite: the same SQL text (`$1` placeholders, TEXT, BIGINT and BYTEA/BLOB columns,
//! ids as text, times as microseconds since 1970) runs on both through sqlx's `Any` driver.
//!
//! To lock a row on both, write to it first: `UPDATE … SET version = version + 1 WHERE id = $1 RETURNING …`.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Any, AnyConnection, AnyPool, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
};
use tokio::sync::Notify;

use crate::Outbox;

/// Which database is behind a [`Database`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, for production.
    Postgres,
    /// SQLite in WAL mode, the embedded default. One connection, so one writer.
    Sqlite,
}

/// A database URL that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither PostgreSQL nor SQLite.
    #[error("the database URL must begin with postgres:// or sqlite:, not {0:?}")]
    Scheme(String),
    /// The driver cannot read it.
    #[error("the database URL cannot be read")]
    Malformed(#[source] sqlx::Error),
}

/// One step of a schema. Steps run once, in the order of their versions, when a service starts.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Unique in its list, ascending.
    pub version: i64,
    /// What it does, in a few words.
    pub name: &'static str,
    /// SQL that runs on both databases. Several statements, each closed by `;`.
    pub sql: &'static str,
}

/// A connection pool, and the bell that tells the relay of new outbox rows.
#[derive(Clone)]
pub struct Database {
    pool: AnyPool,
    dialect: Dialect,
    committed: Arc<Notify>,
}

impl Database {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// When the URL is for no database we know. An unreachable server is no error here.
    pub fn connect_lazy(url: &str) -> Result<Database, DatabaseUrlError> {
        install_default_drivers();
        let dialect = match url.split(':').next().unwrap_or_default() {
            "postgres" | "postgresql" => Dialect::Postgres,
            "sqlite" => Dialect::Sqlite,
            other => return Err(DatabaseUrlError::Scheme(other.to_owned())),
        };
        let options = match dialect {
            Dialect::Postgres => AnyPoolOptions::new().max_connections(10),
            Dialect::Sqlite => AnyPoolOptions::new().max_connections(1),
        };
        let pool =
            options.acquire_timeout(Duration::from_secs(10)).connect_lazy(url).map_err(DatabaseUrlError::Malformed)?;
        Ok(Database { pool, dialect, committed: Arc::new(Notify::new()) })
    }

    /// For reads outside a transaction.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Begins a transaction. On SQLite it takes the write lock at once (`BEGIN IMMEDIATE`): a transaction that reads
    /// first and writes later would fail with SQLITE_BUSY instead of waiting.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        let inner = match self.dialect {
            Dialect::Postgres => self.pool.begin().await?,
            Dialect::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
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
