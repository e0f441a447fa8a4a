use std::time::Duration;

use payment_gateway_fake::Config;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{config, start};

#[tokio::test]
async fn a_gateway_that_is_down_answers_503_and_charges_nothing() {
    let gateway = start(config()).await;
    assert_eq!(gateway.faults(json!({"mode": "down"})).await.0, 200);
    assert_eq!(gateway.charge("order-1", 100, "tok_visa").await.0, 503);
    assert_eq!(gateway.get("/charges?idempotencyKey=order-1").await.0, 503);
    assert_eq!(gateway.get("/health").await.0, 503);
    assert!(gateway.ledger().await.is_empty(), "the auditor sees the ledger all the same");
    gateway.faults(json!({"mode": "up"})).await;
    assert_eq!(gateway.get("/health").await.0, 200);
    assert_eq!(gateway.charge("order-1", 100, "tok_visa").await.0, 200);
}

#[tokio::test]
async fn above_the_limit_a_caller_is_told_when_to_come_back() {
    let gateway = start(Config { max_rps: Some(5), ..config() }).await;
    let mut limited = 0;
    for number in 0..20 {
        let response = gateway.request(&format!("order-{number}"), 100, "tok_visa").send().await.unwrap();
        if response.status() == 429 {
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=2).contains(&seconds), "retry-after is {seconds}");
            limited += 1;
        }
    }
    assert_eq!(gateway.ledger().await.len(), 20 - limited);
    assert!(limited >= 5, "only {limited} of 20 at once were limited");
    gateway.faults(json!({"maxRps": 0})).await;
    assert_eq!(gateway.charge("order-unlimited", 100, "tok_visa").await.0, 200);
}

#[tokio::test]
async fn a_slow_gateway_charges_late_even_if_the_caller_has_gone() {
    let gateway = start(config()).await;
    gateway.faults(json!({"mode": "slow", "delayMs": 300})).await;
    let impatient = gateway.request("order-1", 100, "tok_visa").timeout(Duration::from_millis(100));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    assert!(gateway.ledger().await.is_empty(), "charged before its time");
    let deadline = Instant::now() + Duration::from_secs(5);
    while gateway.ledger().await.is_empty() {
        assert!(Instant::now() < deadline, "the charge never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_configured_delay_holds_for_charges_only() {
    let gateway = start(Config { delay: Some(Duration::from_millis(200)), ..config() }).await;
    let begun = Instant::now();
    assert_eq!(gateway.charge("order-1", 100, "tok_visa").await.0, 200);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(gateway.get("/faults").await.1, json!({"mode": "up", "delayMs": 200}));
}

#[tokio::test]
async fn a_failing_gateway_has_acted_on_every_other_request_it_failed() {
    let gateway = start(config()).await;
    assert_eq!(gateway.faults(json!({"failureRate": 0.5})).await.1, json!({"mode": "up", "failureRate": 0.5}));
    let mut statuses = Vec::new();
    for number in 0..8 {
        statuses.push(gateway.charge(&format!("order-{number}"), 100, "tok_visa").await.0);
    }
    assert_eq!(statuses, [500, 200, 500, 200, 500, 200, 500, 200]);
    let ledger = gateway.ledger().await;
    let keys: Vec<_> = ledger.iter().map(|charge| charge["idempotencyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, ["order-0", "order-1", "order-3", "order-4", "order-5", "order-7"]);

    let id = ledger[0]["id"].as_str().unwrap();
    assert_eq!(gateway.refund(id).await.0, 500, "refunds fail too");
    assert_eq!(gateway.get("/charges?idempotencyKey=order-0").await.1[0]["status"], "refunded", "and have acted");
    gateway.faults(json!({"mode": "up"})).await;
    assert_eq!(gateway.charge("order-2", 100, "tok_visa").await.0, 200);
}

#[tokio::test]
async fn a_misspelt_fault_is_refused() {
    let gateway = start(config()).await;
    for bad in [
        json!({"mode": "broken"}),
        json!({"delay": 5}),
        json!({"mode": "up", "maxRps": -1}),
        json!({"failureRate": 1.5}),
    ] {
        assert_eq!(gateway.faults(bad.clone()).await.0, 422, "{bad}");
    }
    assert_eq!(gateway.get("/faults").await.1, json!({"mode": "up"}));
}
