//! `status`, `list` and `completions`; and a `serve` that cannot begin.

use std::process::{Command, Stdio};

use serde_json::Value;
use shared_events::OrderId;

use crate::{order_service, stub::Stub, words};

#[test]
fn a_database_that_cannot_be_opened_is_told_with_each_cause_once() {
    let database = "sqlite://no-such-folder/orders.db";
    let ran =
        order_service(&["serve", "--listen", "127.0.0.1:0", "--brokers", "127.0.0.1:1", "--database-url", database]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(error.matches("unable to open database file").count(), 1, "{error}");
}

#[test]
fn status_shows_the_order_and_its_timeline() {
    let stub = Stub::start();
    let id = stub.add("tok_visa").to_string();
    let ran = order_service(&["status", &id, "--url", &stub.url()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[0], format!("order {id}"));
    assert_eq!(lines[1], "customer ada@example.org");
    assert_eq!(lines[2], "items 2 x COFFEE-1KG, 12.50 EUR");
    assert_eq!(lines[4], "state pending");
    assert!(lines[6].contains("order-service order.created orders[3]@0 1 4bf92f35"), "{lines:?}");
}

#[test]
fn status_watch_stays_until_the_end() {
    let stub = Stub::start();
    let id = stub.add("tok_chargeDeclined").to_string();
    let ran = order_service(&["status", &id, "--watch", "--url", &stub.url()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.ends_with("state     cancelled: card declined\n"), "{ran:?}");
    assert_eq!(ran.stdout.matches("order.cancelled").count(), 1, "each event once: {ran:?}");
}

#[test]
fn an_order_nobody_knows_and_a_text_that_is_no_id_are_told_apart() {
    let stub = Stub::start();
    let unknown = OrderId::new().to_string();
    let ran = order_service(&["status", &unknown, "--url", &stub.url()]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&format!("there is no order {unknown}")), "{ran:?}");
    let ran = order_service(&["status", "42", "--url", &stub.url()]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("an order id looks like"), "{ran:?}");
}

#[test]
fn list_pages_through_all_it_may() {
    let stub = Stub::start();
    for _ in 0..230 {
        stub.add("tok_visa");
    }
    let url = stub.url();
    let list = |more: &[&str]| order_service(&[&["list", "--url", &url], more].concat());
    let ran = list(&["-o", "jsonl", "--limit", "1000"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 230), "{}", ran.stderr);
    let ran = list(&["-o", "json", "--limit", "101"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap().as_array().unwrap().len(), 101);
    let ran = list(&[]);
    assert_eq!(words(&ran.stdout)[0], "ORDER STATE TOTAL CREATED (UTC) CUSTOMER REASON");
    assert_eq!(ran.stdout.lines().count(), 51);
    assert!(ran.stderr.contains("there are more"), "{}", ran.stderr);
    let ran = list(&["--state", "stuck"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("pending, completed, cancelled"), "{}", ran.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let stub = Stub::start();
    for _ in 0..3000 {
        stub.add("tok_visa");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_order-service"))
        .args(["list", "--url", &stub.url(), "--limit", "3000", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn completions_are_scripts_for_the_shell() {
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef order-service"), ("fish", "complete -c order-service")]
    {
        let ran = order_service(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains(part), "{shell}");
    }
    assert_eq!(order_service(&["completions", "tcsh"]).code, 2);
}
