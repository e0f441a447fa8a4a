//! `place --file`.

use std::net::TcpListener;

use serde_json::Value;

use crate::{order_service, order_service_with_stdin, stub::Stub, words};

fn line(sku: &str, token: &str) -> String {
    format!(r#"{{"customer":"a@b.c","items":[{{"sku":"{sku}","quantity":1}}],"paymentToken":"{token}"}}"#)
}

fn place_lines(stub: &Stub, lines: &[String], more: &[&str]) -> crate::Ran {
    let url = stub.url();
    let arguments = [&["place", "--url", &url, "--file", "-"], more].concat();
    order_service_with_stdin(&arguments, &(lines.join("\n") + "\n"))
}

#[test]
fn a_file_of_orders_ends_with_a_summary() {
    let stub = Stub::start();
    let mut lines = vec![line("TEA", "tok_visa"); 30];
    lines.extend(vec![line("TEA", "tok_chargeDeclined"); 5]);
    lines.insert(3, String::new());
    let ran = place_lines(&stub, &lines, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = words(&ran.stdout);
    assert_eq!(
        summary[..6],
        ["placed 35", "completed 30", "cancelled 5", "5 card declined", "refused 0", "unfinished 0"]
    );
    assert!(summary[6].starts_with("time to answer p50 "), "{summary:?}");
    assert_eq!(summary[7], "time to end p50 80.0 ms, p99 80.0 ms");
    assert_eq!(stub.orders(), 35);
}

#[test]
fn lines_that_are_refused_are_named_and_the_others_placed() {
    let stub = Stub::start();
    let lines =
        [line("TEA", "tok_visa"), "{\"customer\":".to_owned(), line("NOPE", "tok_visa"), line("TEA", "tok_visa")];
    let ran = place_lines(&stub, &lines, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("line 2 is refused: not an order: "), "{ran:?}");
    assert!(ran.stderr.contains("line 3 is refused: there is no product \"NOPE\""), "{ran:?}");
    assert_eq!(words(&ran.stdout)[..4], ["placed 2", "completed 2", "cancelled 0", "refused 2"]);
}

#[test]
fn orders_without_an_end_in_time_are_named() {
    let lines = [line("TEA", "tok_visa"), line("TEA", "tok_never")];
    let ran = place_lines(&Stub::start(), &lines, &["--timeout", "1s"]);
    assert_eq!(ran.code, 124, "{ran:?}");
    assert!(ran.stderr.contains("line 2, order ") && ran.stderr.contains("eventctl explain"), "{ran:?}");
    assert!(words(&ran.stdout).contains(&"unfinished 1".to_owned()), "{ran:?}");
}

#[test]
fn no_wait_places_and_leaves() {
    let ran = place_lines(&Stub::start(), &vec![line("TEA", "tok_never"); 3], &["--no-wait"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(words(&ran.stdout)[..2], ["placed 3", "refused 0"]);
    assert!(!ran.stdout.contains("completed"), "nobody knows yet: {ran:?}");
}

#[test]
fn a_service_that_is_busy_is_asked_again_without_doubling_an_order() {
    let stub = Stub::start();
    let mut lines = vec![line("TEA", "tok_visa")];
    lines.extend(vec![line("TEA", "tok_busy"); 4]);
    let ran = place_lines(&stub, &lines, &["--no-wait"]);
    assert_eq!((ran.code, stub.orders()), (0, 5), "{ran:?}");
}

#[test]
fn outcomes_are_data() {
    let stub = Stub::start();
    let lines = [line("TEA", "tok_visa"), line("NOPE", "tok_visa")];
    let ran = place_lines(&stub, &lines, &["-o", "jsonl"]);
    let mut rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["line"].as_u64());
    assert_eq!((rows[0]["outcome"].as_str(), rows[1]["outcome"].as_str()), (Some("completed"), Some("refused")));
    assert!(rows[0]["orderId"].is_string() && rows[0]["answerMs"].as_f64() > Some(0.0), "{rows:?}");

    let ran = place_lines(&stub, &lines, &["-o", "json"]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((document["summary"]["placed"].as_u64(), document["orders"].as_array().unwrap().len()), (Some(1), 2));
}

#[test]
fn a_file_that_is_not_there_or_a_service_that_is_away_ends_at_once() {
    let ran = order_service(&["place", "--url", "http://127.0.0.1:9", "--file", "no-such-file.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("cannot open no-such-file.jsonl"), "{ran:?}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let ran = order_service_with_stdin(&["place", "--url", &url, "--file", "-"], &(line("TEA", "tok_visa") + "\n"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("does not answer at"), "{ran:?}");
}
