//! `outbox`.

use event_runtime::Database;
use jiff::Timestamp;
use serde_json::Value;

use crate::order_service;

const EVENTS: [&str; 3] = [
    "01990000-0000-7000-8000-000000000001",
    "01990000-0000-7000-8000-000000000002",
    "01990000-0000-7000-8000-000000000003",
];

/// Two events of the topic `gone` and one of `other` that is no event any more.
async fn with_rows_set_aside(url: &str) -> Database {
    let database = Database::connect_lazy(url).unwrap();
    database.migrate(order_service::store::MIGRATIONS).await.unwrap();
    let mut tx = database.begin().await.unwrap();
    for (seq, (topic, headers)) in [("gone", "[]"), ("gone", "[]"), ("other", "no JSON")].into_iter().enumerate() {
        sqlx::query(
            "INSERT INTO outbox_poison \
             (seq, event_id, topic, record_key, headers, value, created_at, reason, set_aside_at) \
             VALUES ($1, $2, $3, 'o1', $4, 'xyz', 0, 'no such topic', 60000000)",
        )
        .bind(i64::try_from(seq).unwrap())
        .bind(EVENTS[seq])
        .bind(topic)
        .bind(headers)
        .execute(tx.conn())
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
    database
}

#[tokio::test]
async fn events_that_were_set_aside_are_listed_and_put_back_after_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("orders.db").display());
    let database = with_rows_set_aside(&url).await;
    let counts = async || {
        let depth = event_runtime::outbox::depth(&database, Timestamp::now()).await.unwrap();
        (depth.rows, depth.set_aside)
    };

    let ran = order_service(&["outbox", "list", "--database-url", &url]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("EVENT") && ran.stdout.contains("no such topic"), "{ran:?}");
    let ran = order_service(&["outbox", "list", "--database-url", &url, "-o", "jsonl"]);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert_eq!((&lines[0]["eventId"], &lines[0]["bytes"]), (&EVENTS[0].into(), &3.into()));
    assert_eq!((&lines[0]["unreadable"], &lines[2]["unreadable"]), (&Value::Null, &"headers".into()));
    assert_eq!(lines[0]["setAsideAt"], "1970-01-01T00:01:00Z");

    let requeue = |arguments: &[&str]| {
        order_service(&[&["outbox", "requeue", "--database-url", &url, "-o", "jsonl"], arguments].concat())
    };
    let ran = requeue(&["--topic", "gone"]);
    assert!(ran.code == 0 && ran.stdout.lines().count() == 2 && ran.stderr.contains("plan for 2"), "{ran:?}");
    assert_eq!(counts().await, (0, 3), "the plan acts");

    let ran = requeue(&["--event", EVENTS[1], "--execute"]);
    assert!(ran.code == 0 && ran.stderr.contains("1 of 1 put back"), "{ran:?}");
    assert_eq!(counts().await, (1, 2));
    let ran = requeue(&["--all", "--execute"]);
    assert!(ran.code == 1 && ran.stderr.contains("1 cannot be read and stay"), "{ran:?}");
    assert_eq!(counts().await, (2, 1));
    let order: Vec<String> =
        sqlx::query_scalar("SELECT event_id FROM outbox WHERE bucket IS NOT NULL AND created_at > 0 ORDER BY seq")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(order, [EVENTS[1], EVENTS[0]]);
}

#[test]
fn what_is_to_be_put_back_must_be_said() {
    let ran = order_service(&["outbox", "requeue", "--database-url", "sqlite:x.db"]);
    assert!(ran.code == 2 && ran.stderr.contains("--all"), "{ran:?}");
    let ran = order_service(&["outbox", "list", "--database-url", "sqlite:/no/such.db"]);
    assert!(ran.code == 1 && ran.stderr.contains("/no/such.db"), "{ran:?}");
}
