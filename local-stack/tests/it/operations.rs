//! docs/OPERATIONS.md and ARCHITECTURE.md say what is so.

use std::{collections::BTreeSet, path::Path};

use clap::{Args, Command};
use local_stack::{Folder, Stack, StackOptions};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in backquotes in the first cells of the table under `heading`.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = read("docs/OPERATIONS.md");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.split("\n## ").next().unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split('|').next().unwrap_or_default().split(", `"))
        .filter_map(|name| name.split('`').next().map(str::to_owned))
        .collect()
}

fn variables<C: Args>() -> BTreeSet<String> {
    let command = C::augment_args(Command::new("service"));
    command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned)).collect()
}

#[test]
fn every_setting_is_documented() {
    let mut known = BTreeSet::from(["RUST_LOG".to_owned()]);
    known.extend(variables::<order_service::Config>());
    known.extend(variables::<payment_service::Config>());
    known.extend(variables::<inventory_service::Config>());
    known.extend(variables::<email_service::Config>());
    known.extend(variables::<payment_gateway_fake::Config>());
    assert_eq!(documented("Settings"), known);
}

#[test]
fn every_alert_is_documented() {
    let alerts = read("ops/alerts.yml");
    let known: BTreeSet<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(documented("Alerts and what to do"), known.into_iter().map(str::to_owned).collect());
}

/// Those of which no value is trouble by itself: what they count is good, or another metric has the alert.
const NO_TROUBLE: [&str; 14] = [
    "consumer_records_consumed_total",
    "consumer_records_handled_total",
    "consumer_records_duplicate_total",
    "consumer_records_skipped_total",
    // Retries that go on block their keys, what is rejected is a dead letter, floods and openings have a gauge or an outage.
    "consumer_records_retried_total",
    "consumer_records_rejected_total",
    "consumer_dead_letter_floods_total",
    "consumer_breaker_openings_total",
    "consumer_in_flight",
    // What stands or fails there has waited.
    "outbox_rows",
    "outbox_delayed_rows",
    "outbox_buckets",
    "outbox_published_total",
    "outbox_retries_total",
];

#[test]
fn every_metric_that_tells_of_trouble_has_an_alert() {
    let alerts = read("ops/alerts.yml");
    let rules: String = alerts.lines().filter(|line| !line.contains("summary:")).collect();
    for metric in documented("Metrics") {
        assert_eq!(rules.contains(&metric), !NO_TROUBLE.contains(&metric.as_str()), "{metric}");
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let stack = Stack::start(&folder, &StackOptions { brokers: 1, ..StackOptions::default() }).await.unwrap();
    let mut known = BTreeSet::new();
    for (service, url) in &stack.addresses().services {
        if *service == "payment-gateway-fake" {
            continue;
        }
        let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            // Prometheus reads a counter under its name with `_total`.
            known.insert(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
        }
    }
    stack.stop().await.unwrap();

    let documented = documented("Metrics");
    let missing: Vec<_> = known.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/OPERATIONS.md lacks {missing:?}");
    // A family without a sample is not shown, so what is documented is looked for in the source.
    let source = ["consumer/metrics.rs", "outbox/metrics.rs", "http/layers.rs"]
        .map(|file| read(&format!("event-runtime/src/{file}")))
        .concat();
    for name in documented {
        let bare = name.trim_end_matches("_total").trim_start_matches("consumer_");
        // A unit is registered apart from its name.
        let counted =
            [bare, bare.trim_end_matches("_seconds")].iter().any(|name| source.contains(&format!("\"{name}\"")));
        assert!(counted, "docs/OPERATIONS.md has {name}, which nobody counts");
    }
}

#[test]
fn every_test_that_holds_an_invariant_is_there() {
    let architecture = read("ARCHITECTURE.md");
    let rows: Vec<_> = architecture.lines().filter(|line| line.starts_with("| I")).collect();
    assert_eq!(rows.len(), 12, "{rows:#?}");
    let source = rust_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for row in rows {
        let tests: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds {row}");
        for test in tests {
            assert!(source.contains(&format!("fn {test}(")), "ARCHITECTURE.md names {test}, which is nowhere");
        }
    }
}

/// All source of the workspace's packages.
fn rust_sources(root: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}
