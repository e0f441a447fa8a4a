//! `place`, one order.

use std::net::TcpListener;

use serde_json::Value;

use crate::{order_service, run_in, stub::Stub, words};

fn place(stub: &Stub, token: &str, more: &[&str]) -> crate::Ran {
    let url = stub.url();
    let mut arguments =
        vec!["place", "--url", &url, "--sku", "COFFEE-1KG", "--quantity", "2", "--customer", "ada@example.org"];
    arguments.extend(["--payment-token", token]);
    arguments.extend(more);
    order_service(&arguments)
}

#[test]
fn a_paid_order_is_followed_to_its_end() {
    let stub = Stub::start();
    let ran = place(&stub, "tok_visa", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let lines = words(&ran.stdout);
    assert_eq!(lines[0].len(), 36, "the order's id comes first, alone: {lines:?}");
    assert_eq!(
        lines[1..],
        [
            "TIME (UTC) SERVICE EVENT TOPIC[PARTITION]@OFFSET TRY TRACE ID DETAIL".to_owned(),
            format!("12:00:00.000 order-service order.created orders[3]@0 1 {trace}"),
            format!("12:00:00.040 payment-service payment.answered orders[3]@7 1 {trace} ch_1"),
            format!("12:00:00.080 order-service order.completed orders[3]@1 1 {trace}"),
            "completed (12.50 EUR)".to_owned(),
        ]
    );
    assert_eq!(ran.stderr.trim(), format!("order-service at {} (from the command line)", stub.url()));
}

#[test]
fn a_cancelled_order_ends_with_3_and_the_reason() {
    let ran = place(&Stub::start(), "tok_chargeDeclined", &[]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.ends_with("cancelled: card declined (12.50 EUR)\n"), "{ran:?}");
}

#[test]
fn an_order_without_an_end_says_how_to_look_it_up() {
    let ran = place(&Stub::start(), "tok_never", &["--timeout", "300ms"]);
    assert_eq!(ran.code, 124, "{ran:?}");
    let id = ran.stdout.lines().next().unwrap();
    assert!(ran.stderr.contains("has not ended within 300ms"), "{ran:?}");
    assert!(ran.stderr.contains(&format!("order-service status {id}")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("eventctl explain {id}")), "{ran:?}");
}

#[test]
fn no_wait_prints_the_id_and_nothing_else() {
    let ran = place(&Stub::start(), "tok_never", &["--no-wait"]);
    assert_eq!((ran.code, ran.stdout.lines().count(), ran.stdout.trim().len()), (0, 1, 36), "{ran:?}");
}

#[test]
fn json_is_one_document_and_jsonl_one_object_a_line() {
    let stub = Stub::start();
    let ran = place(&stub, "tok_visa", &["-o", "json"]);
    let order: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, order["state"].as_str()), (0, Some("completed")));

    let ran = place(&stub, "tok_visa", &["-o", "jsonl"]);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "the answer, three events, the order: {ran:?}");
    assert_eq!((lines[0]["state"].as_str(), lines[4]["state"].as_str()), (Some("pending"), Some("completed")));
    assert_eq!(lines[1]["event"], "order.created");
}

#[test]
fn a_key_used_again_gives_the_first_order_again() {
    let stub = Stub::start();
    let [first, again] = [(); 2].map(|()| place(&stub, "tok_visa", &["--no-wait", "--idempotency-key", "k-1"]));
    assert_eq!(first.stdout, again.stdout);
    assert_eq!(stub.orders(), 1);
}

#[test]
fn a_refusal_is_told_in_the_services_words() {
    let stub = Stub::start();
    let ran = order_service(&["place", "--url", &stub.url(), "--item", "NOPE=1", "--customer", "ada@example.org"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.ends_with("error: there is no product \"NOPE\" (422)\n"), "{ran:?}");
}

#[test]
fn flags_that_do_not_fit_together_are_usage_errors() {
    let table: [(&[&str], &str); 7] = [
        (&["--customer", "a@b.c"], "nothing is ordered"),
        (&["--customer", "a@b.c", "--sku", "A", "--sku", "B", "--quantity", "1"], "2 --sku and 1 --quantity"),
        (&["--item", "A=1"], "--customer"),
        (&["--customer", "a@b.c", "--item", "A=many"], "is no quantity"),
        (&["--customer", "a@b.c", "--item", "A", "--timeout", "soon"], "10s"),
        (&["--file", "-", "--item", "A=1"], "cannot be used with"),
        (&["--customer", "a@b.c", "--item", "A", "-o", "xml"], "jsonl"),
    ];
    for (arguments, expected) in table {
        let ran = order_service(&[&["place", "--url", "http://127.0.0.1:9"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn flags_that_do_not_fit_together_are_answered_with_the_usage_of_place() {
    for flags in
        [&["--customer", "a@b.c"][..], &["--customer", "a@b.c", "--sku", "A", "--quantity", "1", "--quantity", "2"]]
    {
        let ran = order_service(&[&["place"], flags].concat());
        assert!(ran.stderr.contains("Usage: order-service place "), "{flags:?}: {ran:?}");
    }
}

#[test]
fn a_service_that_is_away_is_named_with_where_its_address_came_from() {
    // Bound and not listening for HTTP any more: a port where nobody is.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let ran = order_service(&["place", "--url", &url, "--item", "A", "--customer", "a@b.c"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [&url, "from the command line", "refused", "cargo run", "docker compose up"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn the_running_stack_is_found_without_flags() {
    let stub = Stub::start();
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::create_dir(folder.path().join(".local-stack")).unwrap();
    let file = format!("ORDER_SERVICE_URL={}\nLOCAL_STACK_PID={}\n", stub.url(), std::process::id());
    std::fs::write(folder.path().join(".local-stack/env"), file).unwrap();
    let ran = run_in(&below, &["place", "--item", "A", "--customer", "a@b.c", "--no-wait"], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(".local-stack/env"), "{ran:?}");
}
