//! One code path for PostgreSQL and SQLite: the same SQL text (`$1` placeholders, TEXT, BIGINT and BYTEA/BLOB columns,
//! ids as text, times as microseconds since 1970) runs on both through sqlx's `Any` driver.
//!
//! To lock rows on both, end their SELECT with [`Tx::for_update`]; in the order of what identifies them, so that two
//! transactions do not wait for each other.

pub mod columns;
mod migrate;
pub mod rows;

use std::{
    fmt,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, Transaction,
    any::{AnyPoolOptions, install_default_drivers},
    postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{Clock, Outbox, outbox::Commits};

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

/// A database that waiting does not mend.
#[derive(Debug, thiserror::Error)]
#[error("the SQLite database {file} cannot be opened; its folder must exist and be writable")]
pub struct OpenError {
    file: String,
    source: sqlx::Error,
}

/// A connection pool, and the bell that tells the relay of new outbox rows.
#[derive(Clone)]
pub struct Database {
    writers: AnyPool,
    readers: AnyPool,
    dialect: Dialect,
    /// Kept for the connection that listens for notifications; may hold a password.
    url: Arc<str>,
    /// Counts the transactions that put rows into the outbox.
    commits: Arc<watch::Sender<Commits>>,
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
        let (url, dialect) = match url.split(':').next().unwrap_or_default() {
            "postgres" | "postgresql" => (url.to_owned(), Dialect::Postgres),
            "sqlite" => (with_mode(url, "rwc"), Dialect::Sqlite),
            other => return Err(DatabaseUrlError::Scheme(other.chars().take(20).collect())),
        };
        let (writers, readers) = match dialect {
            Dialect::Postgres => postgres_pools(&url),
            Dialect::Sqlite => sqlite_pools(&url),
        }
        .map_err(DatabaseUrlError::Malformed)?;
        Ok(Database {
            writers,
            readers,
            dialect,
            url: url.into(),
            commits: Arc::new(watch::Sender::new(Commits::default())),
        })
    }

    /// The same for a database that must be there already: a missing SQLite file is not created.
    ///
    /// # Errors
    /// When the URL is for no database we know. A database that is not there is no error here.
    pub fn existing_lazy(url: &str) -> Result<Database, DatabaseUrlError> {
        match url.starts_with("sqlite:") {
            true => Database::connect_lazy(&with_mode(url, "rw")),
            false => Database::connect_lazy(url),
        }
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

    /// Waits until a connection can be made. Says so in the log every few seconds while a server is away.
    ///
    /// # Errors
    /// When a SQLite file cannot be opened: nobody is going to start it.
    pub async fn wait_until_reachable(&self) -> Result<(), OpenError> {
        const PATIENCE: Duration = Duration::from_secs(3);
        let mut waited = false;
        loop {
            let began = Instant::now();
            // A connection of its own, because the pool hides the reason behind "timed out".
            let error = match timeout(PATIENCE, AnyConnection::connect(self.connection_url())).await {
                Ok(Ok(connection)) => {
                    if waited {
                        tracing::info!(database = self.place(), "the database answers");
                    }
                    // It has served its purpose; should the good-bye fail, the server notices by itself.
                    connection.close().await.ok();
                    return Ok(());
                }
                Ok(Err(source)) if self.dialect == Dialect::Sqlite => {
                    return Err(OpenError { file: self.place(), source });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {PATIENCE:?}"),
            };
            waited = true;
            tracing::warn!(database = self.place(), error, "waiting for the database; ready when it comes");
            sleep(PATIENCE.saturating_sub(began.elapsed())).await;
        }
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

    /// Begins a transaction that only reads, and sees the database as it was at one moment however long it takes.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn begin_snapshot(&self) -> Result<Tx, sqlx::Error> {
        let statement = match self.dialect {
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Dialect::Sqlite => "BEGIN",
        };
        Ok(Tx { inner: self.readers.begin_with(statement).await?, dialect: self.dialect })
    }

    /// Writes `outbox` into the transaction, commits, and wakes the relay.
    ///
    /// # Errors
    /// When a statement or the commit fails; then nothing is stored.
    pub async fn commit(&self, mut tx: Tx, outbox: Outbox) -> Result<(), sqlx::Error> {
        let buckets = outbox.buckets();
        outbox.store(&mut tx).await?;
        tx.commit().await?;
        if !buckets.is_empty() {
            self.commits.send_modify(|commits| commits.add(buckets));
        }
        Ok(())
    }

    /// The same database by a few connections of its own, on which the server ends what takes longer than `limit`. SQLite has
    /// one writer and no server: there they are the same connections.
    pub(crate) fn apart(&self, limit: Duration) -> Database {
        let pool = match self.dialect {
            Dialect::Postgres => limited_pool(&self.url, limit).expect("the URL has been read before"),
            Dialect::Sqlite => return self.clone(),
        };
        Database { writers: pool.clone(), readers: pool, ..self.clone() }
    }

    /// Uses the connections of [`apart`](Database::apart) no more: each of them is closed as it is, without waiting for what
    /// it is at. On SQLite they are everybody's, and stay.
    pub(crate) fn abandon(&self) {
        if self.dialect == Dialect::Postgres {
            // Closed from the call on; the future would only wait until the last connection is gone.
            drop(self.writers.close());
        }
    }

    /// Whether a transaction of the one is a transaction of the other: clones of one pool.
    pub(crate) fn is_same_as(&self, other: &Database) -> bool {
        Arc::ptr_eq(&self.commits, &other.commits)
    }

    /// How many transactions can be open at the same time.
    pub(crate) fn transactions_at_once(&self) -> usize {
        match self.dialect {
            Dialect::Postgres => WRITERS as usize,
            Dialect::Sqlite => 1,
        }
    }

    /// Closes every connection once it is free.
    pub async fn close(&self) {
        self.writers.close().await;
        self.readers.close().await;
    }

    /// Changes whenever a transaction of this process put rows into the outbox.
    pub(crate) fn commits(&self) -> watch::Receiver<Commits> {
        self.commits.subscribe()
    }

    /// For a connection outside the pool. May hold a password.
    pub(crate) fn connection_url(&self) -> &str {
        &self.url
    }

    /// Which database this is, in a form that may be shown: without user, password and parameters.
    pub fn place(&self) -> String {
        let end = self.url.find('?').unwrap_or(self.url.len());
        let url = &self.url[..end];
        match (self.dialect, url.split_once("://")) {
            (Dialect::Postgres, Some((scheme, rest))) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
            }
            _ => url.trim_start_matches("sqlite:").trim_start_matches("//").to_owned(),
        }
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

    /// What ends a SELECT of rows that nobody else may change until this transaction ends. On SQLite it is empty: there the
    /// transaction is the only one that writes.
    pub fn for_update(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => "FOR UPDATE",
            Dialect::Sqlite => "",
        }
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

/// Connections of a service to PostgreSQL. Reads have their own, so that no request waits behind a backlog of handlers.
const WRITERS: u32 = 8;
const READERS: u32 = 4;
/// A connection that has rested for longer is tested before it is used.
const UNTESTED: Duration = Duration::from_secs(1);

fn postgres_pools(url: &str) -> Result<(AnyPool, AnyPool), sqlx::Error> {
    // Read here by the driver itself, so that a port that is no number is told at once and not at the first connection.
    PgConnectOptions::from_str(url)?;
    Ok((postgres_pool(WRITERS).connect_lazy(url)?, postgres_pool(READERS).connect_lazy(url)?))
}

fn postgres_pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        // The test costs a round trip; one that worked a moment ago is as likely to work as one just tested.
        .test_before_acquire(false)
        .before_acquire(|conn, used| {
            Box::pin(async move {
                if used.idle_for >= UNTESTED {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
}

/// One connection to work on, and one more because the pool tests the one before for a moment after its use.
fn limited_pool(url: &str, limit: Duration) -> Result<AnyPool, sqlx::Error> {
    postgres_pool(2)
        .after_connect(move |conn, _| Box::pin(async move { conn.execute(limits(limit)).await.map(drop) }))
        .connect_lazy(url)
}

/// Has PostgreSQL end what takes longer on a connection. `lock_timeout` besides `statement_timeout`, because that one does
/// not apply while a transaction commits; the last one is for a client that was cut off and cannot be told so.
pub(crate) fn limits(limit: Duration) -> AssertSqlSafe<String> {
    let millis = limit.as_millis().max(1);
    AssertSqlSafe(format!(
        "SET statement_timeout = {millis}; SET lock_timeout = {millis}; \
         SET idle_in_transaction_session_timeout = {millis}"
    ))
}

/// How SQLite opens the file, unless the URL says so itself.
fn with_mode(url: &str, mode: &str) -> String {
    if in_memory(url) || url.contains("mode=") {
        return url.to_owned();
    }
    format!("{url}{}mode={mode}", if url.contains('?') { '&' } else { '?' })
}

fn in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

/// One connection that writes, and a few that read beside it, as WAL allows: a GET never waits for a handler, and a
/// read while a transaction is open is no deadlock. A database in memory has one connection for both.
fn sqlite_pools(url: &str) -> Result<(AnyPool, AnyPool), sqlx::Error> {
    const SETUP: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
        PRAGMA foreign_keys = ON;";
    const SETUP_READER: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA query_only = ON;";
    let pool = |connections, setup: &'static str| {
        AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            // A local file needs no test before each use.
            .test_before_acquire(false)
            .after_connect(move |conn, _| Box::pin(async move { conn.execute(setup).await.map(drop) }))
    };
    SqliteConnectOptions::from_str(url)?;
    if in_memory(url) {
        let only = pool(1, SETUP).idle_timeout(None).max_lifetime(None).connect_lazy(url)?;
        return Ok((only.clone(), only));
    }
    Ok((pool(1, SETUP).connect_lazy(url)?, pool(4, SETUP_READER).connect_lazy(url)?))
}
