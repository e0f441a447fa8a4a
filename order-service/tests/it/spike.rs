use std::collections::HashSet;

use axum::http::StatusCode;
use futures_util::future::join_all;

use crate::bench::{Bench, order};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_share_a_transaction_are_each_stored_whole() {
    let bench = Bench::new().await;
    let body = order("ada@example.org");
    // Every second request repeats the key of the one before it: copies meet within a batch and across batches.
    let keys: Vec<String> = (0..400).map(|request| format!("key-{}", request / 2)).collect();
    let answers = join_all(keys.iter().map(|key| bench.post(&body, Some(key)))).await;

    assert!(answers.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    let ids: HashSet<_> = answers.iter().map(|answer| answer.body["orderId"].to_string()).collect();
    assert_eq!(ids.len(), 200);
    let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(replayed, 200);
    for table in ["orders", "order_timeline", "outbox", "outbox_delayed"] {
        assert_eq!(bench.count(table).await, 200, "{table}");
    }
}

#[tokio::test]
async fn without_a_database_an_order_is_refused_for_now_and_not_for_ever() {
    let bench = Bench::new().await;
    bench.database.close().await;
    let answers = join_all((0..3).map(|_| async { bench.post(&order("ada@example.org"), None).await })).await;
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
        assert!(answer.body["detail"].as_str().unwrap().contains("same Idempotency-Key"), "{}", answer.body);
    }
}
