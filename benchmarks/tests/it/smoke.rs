//! Whether the workloads work at all, on the embedded broker.

use std::process::Command;

use serde_json::Value;

/// Runs a workload with little work, and returns the figures as subject and variant. Each has a ratio to what was written by
/// hand.
fn run(arguments: &[&str]) -> Vec<String> {
    let figures = figures(arguments);
    for figure in &figures {
        assert!(figure["median"].as_f64().is_some_and(|median| median > 0.0), "{figure}");
        assert!(figure["ratio_to_hand_written"].is_number(), "{figure}");
    }
    figures.iter().map(named).collect()
}

fn named(figure: &Value) -> String {
    format!("{} {} {}", figure["workload"], figure["subject"], figure["variant"]).replace('"', "")
}

fn figures(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(["--embedded", "--rounds", "1", "-o", "jsonl"])
        .args(arguments)
        .output()
        .expect("cargo has built it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(|line| serde_json::from_str(line).expect("a figure is a JSON object")).collect()
}

#[test]
fn pass_through_reads_everything_with_every_subject() {
    let figures = run(&["pass-through", "--records", "600"]);
    assert_eq!(
        figures,
        [
            "pass-through hand-written BaseConsumer, serde_json",
            "pass-through hand-written BaseConsumer, not parsed",
            "pass-through hand-written batch call, serde_json",
            "pass-through hand-written batch call, not parsed",
            "pass-through event-runtime PlainHandler",
        ]
    );
}

#[test]
fn keyed_io_keeps_the_order_in_every_case() {
    let figures = run(&["keyed-io", "--records", "300"]);
    let due: Vec<String> = ["a", "b", "c", "d"]
        .iter()
        .flat_map(|case| {
            [
                format!("keyed-io-{case} hand-written bound of the sleeps"),
                format!("keyed-io-{case} event-runtime PlainHandler"),
            ]
        })
        .collect();
    assert_eq!(figures, due);
}

#[test]
fn scale_shares_the_work_out_among_instances_and_does_all_of_it_whatever_the_keys() {
    let figures = figures(&["scale", "--cases", "instances,keys", "--shared", "300", "--records", "300"]);
    let due: Vec<String> = ["1 instance", "2 instances", "4 instances", "2 instances", "4 instances"]
        .map(|variant| format!("scale-instances event-runtime {variant}"))
        .into_iter()
        .chain(["10", "1k", "100k", "1m"].iter().flat_map(|keys| {
            ["hand-written BaseConsumer, serde_json", "event-runtime PlainHandler", "event-runtime PlainHandler"]
                .map(|subject| format!("scale-keys-{keys} {subject}"))
        }))
        .collect();
    assert_eq!(figures.iter().map(named).collect::<Vec<_>>(), due);
}

#[test]
fn orders_go_through_all_services_at_every_rate() {
    let arguments = ["orders", "--orders", "40", "--concurrency", "8", "--rates", "5,20", "--seconds", "1"];
    let figures = figures(&arguments);
    let found = |unit: &str, variant: &str| {
        figures.iter().any(|figure| {
            figure["unit"] == unit && figure["variant"].as_str().is_some_and(|found| found.starts_with(variant))
        })
    };
    // At which rates a machine that has other things to do keeps up is not asserted.
    for (unit, variant) in [
        ("orders/s", "as fast as accepted"),
        ("ms p50", "5/s"),
        ("ms p99", "20/s"),
        ("orders behind at the end", "20/s"),
        ("CPU ms an order", "as fast as accepted: the system"),
        ("peak MiB", "payment-service"),
    ] {
        assert!(found(unit, variant), "{unit} of {variant} is missing: {figures:?}");
    }
}
