//! `verify`.

use std::{collections::BTreeMap, fs, path::Path};

use axum::{Json, Router, extract::Query, routing::get};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::MockKafka;
use tokio::net::TcpListener;

use crate::{Ran, eventctl, words};

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A gateway with this ledger; returns its URL.
async fn gateway(charges: Value) -> String {
    listening(Router::new().route("/charges", get(async move || Json(charges)))).await
}

/// A Mailpit that holds so many copies of the order's mail and gives out two at a time, whatever is asked for.
async fn mailpit(copies: usize) -> String {
    let page = async move |Query(query): Query<BTreeMap<String, usize>>| {
        let message =
            json!({"ID": "x", "MessageID": "m1@shop.example", "Subject": format!("Order {ORDER} is confirmed")});
        Json(json!({"total": copies, "messages": vec![message; copies.saturating_sub(query["start"]).min(2)]}))
    };
    listening(Router::new().route("/api/v1/messages", get(page))).await
}

async fn listening(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A folder with an export of every service; order-service's holds `orders`.
fn exports(orders: &[Value]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for service in ["order-service", "payment-service", "inventory-service", "email-service"] {
        let rows = if service == "order-service" { orders } else { &[] };
        let mut lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        let end = json!({"kind": "export", "service": service, "at": "2026-01-31T12:01:00Z", "rows": rows.len()});
        lines.push(end.to_string());
        fs::write(folder.path().join(format!("{service}.jsonl")), lines.join("\n")).unwrap();
    }
    folder
}

fn completed_order() -> Value {
    json!({
        "kind": "order", "orderId": ORDER, "state": "completed", "reason": null, "items": [],
        "total": {"minor": 1250, "currency": "EUR"}, "createdAt": "2026-01-31T12:00:00Z",
        "expiresAt": "2026-01-31T12:00:30Z", "endedAt": "2026-01-31T12:00:01Z",
    })
}

async fn verify(exports: &Path, gateway: &str, more: &[&str]) -> Ran {
    let kafka = MockKafka::start(1);
    let (mails, brokers) = (tempfile::tempdir().unwrap(), kafka.addresses());
    let (exports, mails) = (exports.display().to_string(), mails.path().display().to_string());
    let arguments = ["verify", "--audit-dir", &exports, "--gateway-url", gateway, "--mail-dir", &mails, "-b", &brokers];
    eventctl(&[&arguments[..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_ends_with_0_where_nothing_is_wrong_and_with_1_where_something_is() {
    let nothing = gateway(json!([])).await;
    let ran = verify(exports(&[]).path(), &nothing, &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(words(&ran.stdout).last().unwrap(), "no violations in 0 orders judged");

    let wrong = exports(&[completed_order()]);
    let ran = verify(wrong.path(), &nothing, &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], "VIOLATION ORDER SUBJECT EXPECTED FOUND");
    assert!(lines.contains(&format!("completed-is-charged {ORDER} - a charge of 12.50 EUR kept none")), "{lines:?}");

    let charge = json!({
        "id": "ch_1", "idempotencyKey": ORDER, "amount": {"minor": 1250, "currency": "EUR"}, "status": "succeeded",
        "token": "tok_visa", "createdAt": "2026-01-31T12:00:00Z",
    });
    let ran = verify(wrong.path(), &gateway(json!([charge])).await, &["-o", "jsonl"]).await;
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rules: Vec<_> = lines.iter().filter_map(|line| line["rule"].as_str()).collect();
    assert!(rules.contains(&"one-mail") && !rules.contains(&"completed-is-charged"), "{lines:?}");
    let summary = lines.last().unwrap();
    assert_eq!((summary["kind"].as_str(), summary["chargesKept"].as_u64()), (Some("summary"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_counted_at_mailpit_page_by_page() {
    let (kafka, folder) = (MockKafka::start(1), exports(&[completed_order()]));
    let (gateway, mailpit) = (gateway(json!([])).await, mailpit(5).await);
    let (brokers, exports) = (kafka.addresses(), folder.path().display().to_string());
    let arguments =
        ["verify", "--audit-dir", &exports, "--gateway-url", &gateway, "--mailpit-url", &mailpit, "-b", &brokers];
    let ran = eventctl(&[&arguments[..], &["-o", "json", "--max-extra-mails", "3"]].concat()).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["counts"]["mails"], &report["counts"]["extraMails"]), (&5.into(), &4.into()));
    let rules: Vec<_> = report["violations"].as_array().unwrap().iter().map(|violation| &violation["rule"]).collect();
    assert!(rules.contains(&&"extra-mails".into()) && !rules.contains(&&"one-mail".into()), "{rules:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_that_are_missing_or_cut_short_are_refused() {
    let gateway = gateway(json!([])).await;
    let folder = exports(&[completed_order()]);
    let orders = folder.path().join("order-service.jsonl");

    let whole = fs::read_to_string(&orders).unwrap();
    fs::write(&orders, whole.lines().next().unwrap()).unwrap();
    let ran = verify(folder.path(), &gateway, &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("order-service.jsonl ends in the middle of an export"), "{ran:?}");

    fs::write(&orders, whole.lines().last().unwrap()).unwrap();
    let ran = verify(folder.path(), &gateway, &[]).await;
    assert!(ran.stderr.contains("the export of order-service has 0 rows and says 1"), "{ran:?}");

    fs::remove_file(&orders).unwrap();
    let ran = verify(folder.path(), &gateway, &[]).await;
    assert!(ran.stderr.contains("no export of order-service"), "{ran:?}");
    assert_eq!(eventctl(&["verify"]).await.code, 2);
}
