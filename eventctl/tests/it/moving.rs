//! `replay-offsets`.

use event_runtime::{
    Database,
    inbox::{self, Fate},
};
use jiff::Timestamp;
use serde_json::Value;
use shared_events::EventId;
use test_support::{MockKafka, records::publish_raw};

use crate::{
    Ran, eventctl,
    lagging::{commit, five_orders_of_which_are_committed},
    words,
};

async fn replay(kafka: &MockKafka, arguments: &[&str]) -> Ran {
    eventctl(&[&["replay-offsets", "payment-service", "-b", &kafka.addresses()], arguments].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_moves_nothing_and_execute_moves_the_group() {
    let kafka = MockKafka::start(1);
    let partition = five_orders_of_which_are_committed(&kafka.config(), 4).await;

    let ran = replay(&kafka, &["--to", "1"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "GROUP TOPIC PARTITION CURRENT-OFFSET NEW-OFFSET READ-AGAIN LEFT-OUT");
    assert!(lines.contains(&format!("payment-service orders {partition} 4 1 3 0")), "{lines:?}");
    assert!(ran.stderr.contains("its inbox remembers them") && ran.stderr.contains("this is the plan"), "{ran:?}");
    assert_eq!(stands(&kafka, partition).await, Some(4), "a plan moves nothing");

    let ran = replay(&kafka, &["--to", "1", "--execute", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["executed"], true);
    assert_eq!(stands(&kafka, partition).await, Some(1));

    let ran = replay(&kafka, &["--to", "end"]).await;
    assert!(ran.stderr.contains("4 records that wait will never be handled by payment-service"), "{ran:?}");
    let ran = replay(&kafka, &["--to", "end", "--topic", "mails"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("payment-service does not read mails; it reads orders"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reprocess_makes_the_inbox_forget_what_is_read_again_and_nothing_else() {
    let kafka = MockKafka::start(1);
    let (folder, events) = (tempfile::tempdir().unwrap(), [(); 4].map(|()| EventId::new()));
    let url = format!("sqlite:{}", folder.path().join("payment.db").display());
    let database = Database::connect_lazy(&url).unwrap();
    let mut partition = 0;
    for event in events {
        let id = event.to_string();
        let headers: [(&str, &[u8]); 5] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", id.as_bytes()),
            ("ce_source", b"somebody"),
            ("ce_type", b"order.created"),
            ("ce_time", b"2026-01-01T00:00:00Z"),
        ];
        partition = publish_raw(&kafka.config(), "orders", "k", &headers, b"{}").await.partition;
    }
    commit(&kafka.config(), "payment-service", "orders", partition, 3);

    // Nothing is changed before it is clear that there is an inbox.
    let again = ["--to", "1", "--reprocess", "--database-url", &url];
    let ran = replay(&kafka, &[&again[..], &["--execute"]].concat()).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("--database-url is where payment-service keeps its data"), "{ran:?}");
    assert_eq!(stands(&kafka, partition).await, Some(3));

    database.migrate(&[]).await.unwrap();
    for (group, event) in events.map(|event| ("payment-service", event)).into_iter().chain([("another", events[1])]) {
        let mut tx = database.begin().await.unwrap();
        inbox::record(&mut tx, group, event, 0, Fate::Handled, Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }
    let remembered = async |group: &str| {
        let mut tx = database.begin().await.unwrap();
        let mut seen = Vec::new();
        for event in events {
            seen.push(inbox::seen(&mut tx, group, event, 0).await.unwrap());
        }
        tx.rollback().await.unwrap();
        seen
    };

    let ran = replay(&kafka, &again).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("2 records are read again, and their 2 events are handled again"), "{ran:?}");
    assert_eq!(remembered("payment-service").await, [true; 4], "a plan forgets nothing");

    let ran = replay(&kafka, &[&again[..], &["--execute"]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("payment-service's inbox has forgotten 2 events"), "{ran:?}");
    assert_eq!(remembered("payment-service").await, [true, false, false, true], "what is not read again stays");
    assert_eq!(remembered("another").await, [false, true, false, false], "another group's inbox stays");
    assert_eq!(stands(&kafka, partition).await, Some(1));

    let ran = replay(&kafka, &["--to", "1", "--reprocess"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("--database-url"), "{ran:?}");
}

async fn stands(kafka: &MockKafka, partition: i32) -> Option<i64> {
    let ran = eventctl(&["lag", "-b", &kafka.addresses(), "--group", "payment-service", "-o", "jsonl"]).await;
    let rows = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.into_iter().find(|row| row["partition"] == partition).unwrap()["currentOffset"].as_i64()
}
