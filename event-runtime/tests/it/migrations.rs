//! Schemas are brought up to date once, by whoever comes first, wholly or not at all.

use event_runtime::{
    Database, Migration,
    database::{DatabaseUrlError, MigrateError},
};

use crate::stage::TestDatabase;

const FIRST: Migration = Migration { version: 1, name: "first", sql: "CREATE TABLE one (id BIGINT PRIMARY KEY);" };
const SECOND: Migration =
    Migration { version: 2, name: "second", sql: "INSERT INTO one VALUES (1); INSERT INTO one VALUES (2);" };

async fn rows(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM one").fetch_one(database.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_together_migrate_once() {
    let test = TestDatabase::empty().await;
    let instances: Vec<_> = (0..6)
        .map(|_| {
            let database = test.connect();
            tokio::spawn(async move { database.migrate(&[FIRST, SECOND]).await })
        })
        .collect();
    for instance in instances {
        instance.await.unwrap().unwrap();
    }
    assert_eq!(rows(&test.connect()).await, 2);
}

#[tokio::test]
async fn a_later_start_applies_only_what_is_new() {
    let test = TestDatabase::empty().await;
    test.connect().migrate(&[FIRST]).await.unwrap();
    test.connect().migrate(&[FIRST, SECOND]).await.unwrap();
    // An instance of the version before, started again during the upgrade.
    test.connect().migrate(&[FIRST]).await.unwrap();
    assert_eq!(rows(&test.connect()).await, 2);
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_behind() {
    let test = TestDatabase::empty().await;
    let broken =
        Migration { version: 2, name: "broken", sql: "INSERT INTO one VALUES (1); CREATE TABEL two (id INT);" };
    let error = test.connect().migrate(&[FIRST, broken]).await.unwrap_err();
    assert!(matches!(error, MigrateError::Step { version: 2, .. }), "{error}");
    test.connect().migrate(&[FIRST, SECOND]).await.unwrap();
    assert_eq!(rows(&test.connect()).await, 2);
}

#[tokio::test]
async fn an_edited_step_is_refused() {
    let test = TestDatabase::empty().await;
    test.connect().migrate(&[FIRST]).await.unwrap();
    let edited = Migration { sql: "CREATE TABLE one (id BIGINT PRIMARY KEY, name TEXT);", ..FIRST };
    let error = test.connect().migrate(&[edited]).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { version: 1, .. }), "{error}");
}

#[tokio::test]
async fn steps_out_of_order_are_refused() {
    let test = TestDatabase::empty().await;
    let error = test.connect().migrate(&[SECOND, FIRST]).await.unwrap_err();
    assert!(matches!(error, MigrateError::Order { version: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_password_is_shown_nowhere() {
    let database = Database::connect_lazy("postgres://orders:s3cret@127.0.0.1:1/orders?connect_timeout=1").unwrap();
    let error = database.migrate(&[]).await.unwrap_err();
    let refused = Database::connect_lazy("postgres://orders:s3cret@127.0.0.1:port/orders").unwrap_err();
    let unknown = Database::connect_lazy("mysql://orders:s3cret@127.0.0.1/orders").unwrap_err();
    assert!(matches!(unknown, DatabaseUrlError::Scheme(_)));
    for shown in [format!("{database:?} {}", database.place()), format!("{error:?} {error}"), format!("{refused:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    assert_eq!(database.place(), "postgres://127.0.0.1:1/orders");
}

#[tokio::test]
async fn a_sqlite_file_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no/such/folder/orders.db");
    let database = Database::connect_lazy(&format!("sqlite:{}", file.display())).unwrap();
    let error = database.wait_until_reachable().await.unwrap_err().to_string();
    assert!(error.contains("no/such/folder/orders.db") && error.contains("writable"), "{error}");
}

/// Reads do not wait for the one writer of SQLite, and cannot write beside it.
#[tokio::test]
async fn reads_go_on_while_a_transaction_is_open() {
    let test = TestDatabase::migrated().await;
    let database = test.connect();
    let open = database.begin().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox").fetch_one(database.pool()).await.unwrap();
    assert_eq!(rows, 0);
    if test.is_sqlite() {
        let refused = sqlx::query("DELETE FROM outbox").execute(database.pool()).await.unwrap_err();
        assert!(refused.to_string().contains("readonly"), "{refused}");
    }
    open.rollback().await.unwrap();
}
