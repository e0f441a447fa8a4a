//! `idempotency-demo`: one test a row, and the command.

use std::process::{Command, Output, Stdio};

use local_stack::idempotency_demo::{Outcome, Scene, Way};
use serde_json::Value;

/// What each event came to: its name, how often it was delivered, handled and charged.
async fn played(way: Way) -> (Outcome, Vec<(&'static str, u64, u64, u64)>) {
    let outcome = Scene::start().await.unwrap().play(way).await.unwrap();
    assert!(outcome.is_as_stated(), "{outcome:?}");
    let tallies = outcome.tallies.iter();
    let numbers = tallies.map(|tally| (tally.event, tally.delivered, tally.handled, tally.charged)).collect();
    (outcome, numbers)
}

#[tokio::test]
async fn without_inbox_and_with_a_fresh_key_a_duplicate_is_charged_twice() {
    let (outcome, numbers) = played(Way::Unprotected).await;
    assert_eq!(numbers, [("A", 2, 2, 2), ("B", 1, 1, 1), ("C", 2, 2, 2)]);
    assert_eq!(outcome.result(), "charged twice, handled twice");
}

#[tokio::test]
async fn without_inbox_the_kept_key_keeps_a_duplicate_from_being_charged_twice() {
    let (outcome, numbers) = played(Way::KeyKept).await;
    assert_eq!(numbers, [("A", 2, 2, 1), ("B", 1, 1, 1), ("C", 2, 2, 1)]);
    assert_eq!(outcome.result(), "charged once, handled twice");
}

#[tokio::test]
async fn with_the_inbox_a_duplicate_is_handled_and_charged_once() {
    let (outcome, numbers) = played(Way::Inbox).await;
    assert_eq!(numbers, [("A", 2, 1, 1), ("B", 1, 1, 1), ("C", 2, 1, 1)]);
    assert_eq!(outcome.result(), "charged once, handled once");
}

async fn demo(arguments: &'static [&'static str]) -> Output {
    let run = move || Command::new(env!("CARGO_BIN_EXE_local-stack")).args(arguments).stdin(Stdio::null()).output();
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_demo_ends_by_itself_with_its_numbers() {
    let ran = demo(&["idempotency-demo", "-o", "json"]).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let said: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(said["asStated"], true);
    assert_eq!(said["delivered"], serde_json::json!(["A", "B", "A", "C", "C"]));
    let results: Vec<_> = said["ways"].as_array().unwrap().iter().map(|way| way["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["charged twice, handled twice", "charged once, handled twice", "charged once, handled once"]);
}

#[tokio::test]
async fn the_demo_is_found_as_a_flag_too_and_writes_a_table() {
    let ran = demo(&["--idempotency-demo"]).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.starts_with("INBOX  GATEWAY KEY"), "{text}");
    assert_eq!(demo(&["--idempotency-demo", "--chaos", "duplicates"]).await.status.code(), Some(2));
}
