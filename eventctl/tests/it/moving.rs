//! `replay-offsets`.

use serde_json::Value;
use test_support::MockKafka;

use crate::{Ran, eventctl, lagging::five_orders_of_which_are_committed, words};

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

async fn stands(kafka: &MockKafka, partition: i32) -> Option<i64> {
    let ran = eventctl(&["lag", "-b", &kafka.addresses(), "--group", "payment-service", "-o", "jsonl"]).await;
    let rows = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.into_iter().find(|row| row["partition"] == partition).unwrap()["currentOffset"].as_i64()
}
