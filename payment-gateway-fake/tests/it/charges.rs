use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{config, start};

#[tokio::test]
async fn a_charge_is_answered_and_stands_in_the_ledger() {
    let gateway = start(config()).await;
    let (status, charge) = gateway.charge("order-1", 1250, "tok_visa").await;
    assert_eq!(status, 200);
    assert!(charge["id"].as_str().unwrap().starts_with("ch_"), "{charge}");
    assert_eq!(charge["idempotencyKey"], "order-1");
    assert_eq!(charge["amount"], json!({"minor": 1250, "currency": "EUR"}));
    assert_eq!(charge["status"], "succeeded");
    assert_eq!(gateway.ledger().await, std::slice::from_ref(&charge));
    assert_eq!(gateway.get("/charges?idempotencyKey=order-1").await, (200, json!([charge])));
    assert_eq!(gateway.get("/charges?idempotencyKey=order-2").await, (200, json!([])));
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    let gateway = start(config()).await;
    let first = gateway.charge("order-1", 1250, "tok_visa").await;
    assert_eq!(gateway.charge("order-1", 1250, "tok_visa").await, first);
    assert_eq!(gateway.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_key_with_another_body_is_a_conflict() {
    let gateway = start(config()).await;
    gateway.charge("order-1", 1250, "tok_visa").await;
    gateway.charge("order-2", 1250, "tok_chargeDeclined").await;
    for (key, minor, token) in
        [("order-1", 1251, "tok_visa"), ("order-1", 1250, "tok_flaky"), ("order-2", 1250, "tok_visa")]
    {
        let (status, problem) = gateway.charge(key, minor, token).await;
        assert_eq!((status, &problem["code"]), (409, &json!("idempotency_key_reused")), "{key} {minor} {token}");
    }
    assert_eq!(gateway.ledger().await.len(), 1);
}

#[tokio::test]
async fn parallel_requests_under_one_key_make_one_charge() {
    let gateway = start(config()).await;
    let requests: Vec<_> = (0..50).map(|_| tokio::spawn(gateway.request("order-1", 99, "tok_visa").send())).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(gateway.ledger().await.len(), 1);
}

#[tokio::test]
async fn declined_tokens_say_why_and_charge_nothing() {
    let gateway = start(config()).await;
    let cases = [
        ("tok_chargeDeclined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_nobody", "invalid_token"),
    ];
    for (token, code) in cases {
        for _ in 0..2 {
            let (status, problem) = gateway.charge(token, 100, token).await;
            assert_eq!((status, &problem["code"], &problem["status"]), (402, &json!(code), &json!(402)));
        }
    }
    assert!(gateway.ledger().await.is_empty());
}

#[tokio::test]
async fn a_flaky_token_fails_twice_for_each_key() {
    let gateway = start(config()).await;
    for key in ["order-1", "order-2"] {
        assert_eq!(gateway.charge(key, 100, "tok_flaky").await.0, 500);
        assert_eq!(gateway.charge(key, 100, "tok_flaky").await.0, 500);
        assert_eq!(gateway.charge(key, 100, "tok_flaky").await.0, 200);
        assert_eq!(gateway.charge(key, 100, "tok_flaky").await.0, 200);
    }
    assert_eq!(gateway.ledger().await.len(), 2);
}

#[tokio::test]
async fn a_timeout_token_charges_once_and_never_answers() {
    let gateway = start(config()).await;
    for _ in 0..2 {
        let request = gateway.request("order-1", 100, "tok_timeout").timeout(Duration::from_millis(100));
        assert!(request.send().await.unwrap_err().is_timeout());
    }
    assert_eq!(gateway.get("/charges?idempotencyKey=order-1").await.1[0]["status"], "succeeded");
    assert_eq!(gateway.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_held_request_does_not_hold_up_the_end() {
    let gateway = start(config()).await;
    let held = tokio::spawn(gateway.request("order-1", 100, "tok_timeout").send());
    let deadline = Instant::now() + Duration::from_secs(5);
    while gateway.ledger().await.is_empty() {
        assert!(Instant::now() < deadline, "the charge never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopping = Instant::now();
    gateway.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(3), "stopping took {:?}", stopping.elapsed());
    assert_eq!(held.await.unwrap().unwrap().status(), 503);
}

#[tokio::test]
async fn a_refund_happens_once_however_often_it_is_asked() {
    let gateway = start(config()).await;
    let id = gateway.charge("order-1", 1250, "tok_visa").await.1["id"].as_str().unwrap().to_owned();
    let first = gateway.refund(&id).await;
    assert_eq!((first.0, &first.1["status"]), (200, &json!("refunded")));
    assert_eq!(gateway.refund(&id).await, first);
    assert_eq!(gateway.ledger().await[0]["status"], "refunded");
    // The charge keeps its key: charging again under it does not take the money again.
    assert_eq!(gateway.charge("order-1", 1250, "tok_visa").await, first);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let gateway = start(config()).await;
    assert_eq!(gateway.refund("ch_none").await.0, 404);
    assert_eq!(gateway.charge("", 100, "tok_visa").await.0, 400);
    assert_eq!(gateway.charge(&"k".repeat(256), 100, "tok_visa").await.0, 400);
    assert_eq!(gateway.charge("order-1", 0, "tok_visa").await.0, 400);
    assert_eq!(gateway.charge("order-1", -5, "tok_visa").await.0, 400);
    assert_eq!(gateway.get("/charges?idempotency_key=order-1").await.0, 400);
    assert_eq!(gateway.get("/nothing").await.0, 404);
    let bad_bodies = [
        (json!({"amount": {"minor": 1, "currency": "euro"}, "token": "tok_visa"}), 400),
        (json!({"amount": {"minor": 1.5, "currency": "EUR"}, "token": "tok_visa"}), 422),
        (json!({"token": "tok_visa"}), 422),
        (json!({"amount": {"minor": 1, "currency": "EUR"}, "token": "t".repeat(20_000)}), 413),
    ];
    for (body, expected) in bad_bodies {
        let status = gateway.request("order-1", 1, "tok_visa").json(&body).send().await.unwrap().status();
        assert_eq!(status, expected, "{body:.80}");
    }
    assert!(gateway.ledger().await.is_empty());
}
