//! `audit`.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use test_support::TempDatabase;

use crate::{order_service, run_in};

#[tokio::test]
async fn audit_exports_every_row_and_says_how_many_there_were() {
    let test = TempDatabase::any().await;
    let (url, database) = (test.url(), test.migrated(order_service::store::MIGRATIONS).await);
    // Bytes that are no text, where a text column takes them.
    let (key, shown) = match url.starts_with("sqlite:") {
        true => ("CAST(x'ff' AS TEXT)", "\u{fffd}"),
        false => ("'o2'", "o2"),
    };
    let aside = format!(
        "INSERT INTO outbox_poison \
         (seq, event_id, topic, record_key, headers, value, created_at, reason, set_aside_at) \
         VALUES (1, 'e4', 'gone', {key}, '[]', '', 4, 'no such topic', 5)"
    );
    let mut tx = database.begin().await.unwrap();
    for statement in [
        "INSERT INTO orders (id, state, payment, stock, customer, items, total_minor, currency, created_at, expires_at, \
         ended_at, fingerprint, version) VALUES ('o1', 'completed', 'succeeded', 'committed', 'ann@example.com', \
         '[]', 1250, 'EUR', 0, 30000000, 1000000, 'f', 1)",
        "INSERT INTO inbox (consumer_group, event_id, handled_at, dead_replay) VALUES ('g', 'e1', 1, NULL), ('g', 'e2', 2, 0)",
        "INSERT INTO outbox (event_id, topic, record_key, headers, value, created_at) VALUES ('e3', 't', 'o1', '[]', '', 3)",
        &aside,
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();

    let ran = order_service(&["audit", "--database-url", &url]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.stdout.contains("ann@example.com"), "whose order it is, is not for auditors: {ran:?}");
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["order", "outbox", "outbox-poison", "inbox", "inbox", "export"]);
    assert_eq!(lines[0]["total"]["minor"], 1250);
    assert_eq!(lines[0]["endedAt"], "1970-01-01T00:00:01Z");
    let set_aside = ["eventId", "topic", "key", "reason"].map(|field| lines[2][field].as_str().unwrap());
    assert_eq!(set_aside, ["e4", "gone", shown, "no such topic"]);
    assert_eq!((&lines[3]["fate"], &lines[4]["fate"]), (&"handled".into(), &"dead".into()));
    assert_eq!((&lines[5]["service"], &lines[5]["rows"]), (&"order-service".into(), &5.into()));

    let ran = order_service(&["audit", "--database-url", &url, "-o", "json"]);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&ran.stdout).unwrap().len(), 6, "{ran:?}");
}

#[test]
fn audit_makes_no_database_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run_in(folder.path(), &["audit", "--database-url", "sqlite:gone.db"], "");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the database at gone.db cannot be read"), "{ran:?}");
    assert!(!folder.path().join("gone.db").exists());
}
