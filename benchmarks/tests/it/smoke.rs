//! Whether the workloads work at all, on the embedded broker.

use std::process::Command;

/// Runs a workload with little work, and returns the figures as subject and variant.
fn run(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(["--embedded", "--rounds", "1", "-o", "jsonl"])
        .args(arguments)
        .output()
        .expect("cargo has built it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let figure = |line: &str| {
        let figure: serde_json::Value = serde_json::from_str(line).expect("a figure is a JSON object");
        assert!(figure["median"].as_f64().is_some_and(|median| median > 0.0), "{line}");
        assert!(figure["ratio_to_hand_written"].is_number(), "{line}");
        format!("{} {} {}", figure["workload"], figure["subject"], figure["variant"]).replace('"', "")
    };
    stdout.lines().map(figure).collect()
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
