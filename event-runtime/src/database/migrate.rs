//! Brings a schema up to date. All steps of one start run in one transaction behind one lock, so that several instances
//! may start at once and a failed step leaves nothing behind.
//!
//! sqlx's own migrator is not used: on SQLite its lock does nothing, so two processes that start together both try to
//! apply the first step.

use jiff::Timestamp;
use sqlx::{AnyConnection, Row as _, raw_sql};

use super::{Database, Dialect, Tx};

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

/// Why a schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A step that ran before reads differently now.
    #[error("migration {version} ({name}) has changed since it was applied; undo the change and add a new migration")]
    Changed {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
    },
    /// The list is not ascending.
    #[error("migration {version} ({name}) must have a higher version than the one before it")]
    Order {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
    },
    /// A step's SQL failed; nothing of this start was applied.
    #[error("migration {version} ({name}) failed")]
    Step {
        /// Its version.
        version: i64,
        /// Its name.
        name: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database failed otherwise.
    #[error("the schema could not be brought up to date")]
    Database(#[from] sqlx::Error),
}

/// The runtime's own tables: the only SQL that differs between the databases.
fn runtime_migrations(dialect: Dialect) -> [Migration; 4] {
    let tables = match dialect {
        Dialect::Postgres => include_str!("../../migrations/postgres/0001_inbox_and_outbox.sql"),
        Dialect::Sqlite => include_str!("../../migrations/sqlite/0001_inbox_and_outbox.sql"),
    };
    let dead = include_str!("../../migrations/0002_dead_letters_in_the_inbox.sql");
    let assignments = include_str!("../../migrations/0003_consumer_assignments.sql");
    let buckets = include_str!("../../migrations/0004_outbox_buckets.sql");
    [
        Migration { version: 1, name: "inbox and outbox", sql: tables },
        Migration { version: 2, name: "dead letters in the inbox", sql: dead },
        Migration { version: 3, name: "consumer assignments", sql: assignments },
        Migration { version: 4, name: "outbox buckets", sql: buckets },
    ]
}

/// Any fixed number that nobody else uses as an advisory lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305808868229538153)";

// The SQL itself is kept as well: it tells an edited step from an applied one, and an operator what ran.
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS schema_history (
    owner TEXT NOT NULL,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    applied_sql TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (owner, version)
)";

pub(super) async fn run(database: &Database, service: &[Migration], now: Timestamp) -> Result<(), MigrateError> {
    check_order(service)?;
    let mut tx = database.begin().await?;
    if database.dialect() == Dialect::Postgres {
        // Held until the commit. SQLite's BEGIN IMMEDIATE has taken the write lock already.
        raw_sql(LOCK).execute(tx.conn()).await?;
    }
    raw_sql(HISTORY).execute(tx.conn()).await?;
    apply(&mut tx, "event-runtime", &runtime_migrations(database.dialect()), now).await?;
    apply(&mut tx, "service", service, now).await?;
    tx.commit().await?;
    Ok(())
}

fn check_order(migrations: &[Migration]) -> Result<(), MigrateError> {
    for (earlier, later) in migrations.iter().zip(migrations.iter().skip(1)) {
        if later.version <= earlier.version {
            return Err(MigrateError::Order { version: later.version, name: later.name });
        }
    }
    Ok(())
}

async fn apply(tx: &mut Tx, owner: &str, migrations: &[Migration], now: Timestamp) -> Result<(), MigrateError> {
    let applied = applied(tx.conn(), owner).await?;
    for &Migration { version, name, sql } in migrations {
        match applied.iter().find(|(known, _)| *known == version) {
            Some((_, known)) if known == sql => continue,
            Some(_) => return Err(MigrateError::Changed { version, name }),
            None => {}
        }
        raw_sql(sql).execute(tx.conn()).await.map_err(|source| MigrateError::Step { version, name, source })?;
        sqlx::query(
            "INSERT INTO schema_history (owner, version, name, applied_sql, applied_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(owner)
        .bind(version)
        .bind(name)
        .bind(sql)
        .bind(now.as_microsecond())
        .execute(tx.conn())
        .await?;
        tracing::info!(owner, version, name, "migrated the schema");
    }
    // Versions that are applied and not in the list are left alone: an older instance may start during an upgrade.
    Ok(())
}

async fn applied(conn: &mut AnyConnection, owner: &str) -> Result<Vec<(i64, String)>, sqlx::Error> {
    let rows = sqlx::query("SELECT version, applied_sql FROM schema_history WHERE owner = $1")
        .bind(owner)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that an earlier version left are found by the relays of this one.
    #[tokio::test]
    async fn rows_of_the_version_before_have_no_bucket_yet() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        let mut tx = database.begin().await.unwrap();
        raw_sql(HISTORY).execute(tx.conn()).await.unwrap();
        let before = &runtime_migrations(Dialect::Sqlite)[..3];
        apply(&mut tx, "event-runtime", before, Timestamp::UNIX_EPOCH).await.unwrap();
        for (table, time) in [("outbox", "created_at"), ("outbox_delayed", "not_before")] {
            let row = format!(
                "INSERT INTO {table} (event_id, topic, record_key, headers, value, {time}) VALUES ('e', 't', 'k', '[]', '', 1)"
            );
            raw_sql(sqlx::AssertSqlSafe(row)).execute(tx.conn()).await.unwrap();
        }
        tx.commit().await.unwrap();

        database.migrate(&[]).await.unwrap();
        let without: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM outbox WHERE bucket IS NULL) + \
                    (SELECT COUNT(*) FROM outbox_delayed WHERE bucket IS NULL)",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        assert_eq!(without, 2);
        let buckets: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox_bucket").fetch_one(database.pool()).await.unwrap();
        assert_eq!(buckets, 16);
    }
}
