use std::{fs, net::TcpListener};

use payment_gateway_fake::Config;
use serde_json::json;

use crate::support::{config, kept_in, start};

#[tokio::test]
async fn the_ledger_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.jsonl");
    let gateway = start(kept_in(&file)).await;
    let kept = gateway.charge("order-1", 1250, "tok_visa").await;
    let returned = gateway.charge("order-2", 500, "tok_visa").await;
    gateway.refund(returned.1["id"].as_str().unwrap()).await;
    gateway.charge("order-3", 500, "tok_chargeDeclined").await;
    let before = gateway.ledger().await;
    gateway.stop().await;

    let gateway = start(kept_in(&file)).await;
    assert_eq!(gateway.ledger().await, before);
    assert_eq!(before[1]["status"], "refunded");
    assert_eq!(gateway.charge("order-1", 1250, "tok_visa").await, kept, "the key is forgotten");
    assert_eq!(gateway.charge("order-3", 500, "tok_visa").await.0, 409, "the declined key is forgotten");
    assert_eq!(gateway.ledger().await.len(), 2);
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.jsonl");
    let gateway = start(kept_in(&file)).await;
    gateway.charge("order-1", 1250, "tok_visa").await;
    gateway.stop().await;
    let whole = fs::read(&file).unwrap();
    for torn in [whole.len() / 2, whole.len() - 1] {
        fs::write(&file, [whole.as_slice(), &whole[..torn]].concat()).unwrap();
        let gateway = start(kept_in(&file)).await;
        assert_eq!(gateway.ledger().await.len(), 1);
        gateway.stop().await;
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
}

#[tokio::test]
async fn a_damaged_line_ends_the_start_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.jsonl");
    fs::write(&file, "nonsense\n").unwrap();
    let error = bind_error(kept_in(&file)).await;
    assert!(error.contains("line 1") && error.contains("ledger.jsonl"), "{error}");
}

#[tokio::test]
async fn one_ledger_serves_one_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.jsonl");
    let gateway = start(kept_in(&file)).await;
    let error = bind_error(kept_in(&file)).await;
    assert!(error.contains("in use by another gateway"), "{error}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_used_port_and_a_missing_folder_say_how_to_mend_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = bind_error(Config { listen: taken.local_addr().unwrap(), ..config() }).await;
    assert!(error.contains("--listen"), "{error}");
    let error = bind_error(kept_in("/nowhere/ledger.jsonl".as_ref())).await;
    assert!(error.contains("/nowhere/ledger.jsonl"), "{error}");
}

#[tokio::test]
async fn every_line_of_the_file_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.jsonl");
    let gateway = start(kept_in(&file)).await;
    let requests: Vec<_> =
        (0..40).map(|number| tokio::spawn(gateway.request(&format!("order-{number}"), 7, "tok_visa").send())).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let text = fs::read_to_string(&file).unwrap();
    let charged: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(charged.len(), 40);
    assert!(charged.iter().all(|line| line["charged"]["amount"]["minor"] == json!(7)));
}

async fn bind_error(config: Config) -> String {
    format!("{:#}", payment_gateway_fake::bind(config).await.err().expect("it started"))
}
