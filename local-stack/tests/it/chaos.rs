//! `--chaos`.

use std::time::Duration;

use local_stack::{Folder, Stack, StackOptions, chaos::Chaos, samples};

/// Plays the sample orders under `faults`; the report.
async fn samples_under(faults: &str) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let stack = Stack::start(&folder, &StackOptions::default()).await.unwrap();
    let chaos = Chaos::begin(&faults.parse().unwrap(), &stack).await.unwrap();
    for sample in samples::SAMPLES {
        samples::play(stack.addresses().url("order-service"), sample, Duration::from_secs(60)).await.unwrap();
    }
    let report = chaos.report(stack.addresses(), &stack.broker().config()).await.unwrap();
    chaos.stop().await.unwrap();
    stack.stop().await.unwrap();
    report
}

#[tokio::test]
async fn a_service_killed_between_its_effect_and_its_commit_comes_back_and_charges_once() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let payment_process = Some(env!("CARGO_BIN_EXE_local-stack").into());
    let options = StackOptions { payment_process, ..StackOptions::default() };
    let stack = Stack::start(&folder, &options).await.unwrap();
    let chaos = Chaos::begin(&"crash".parse().unwrap(), &stack).await.unwrap();
    // Fails where the order is charged a second time, or not at all.
    let order = chaos.crash(stack.addresses(), Duration::from_secs(150)).await.unwrap();
    assert_eq!(order.state, "completed", "{order:#?}");
    let report = chaos.report(stack.addresses(), &stack.broker().config()).await.unwrap();
    assert!(report.contains("payment-service was killed 1 time with"), "{report}");
    assert!(report.contains("=> 1 charges in the gateway's ledger, for 1 orders"), "{report}");
    chaos.stop().await.unwrap();
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_crash_needs_a_process() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::claim(temporary.path()).unwrap();
    let stack = Stack::start(&folder, &StackOptions::default()).await.unwrap();
    let refused = Chaos::begin(&"crash".parse().unwrap(), &stack).await.err().unwrap();
    assert_eq!(format!("{refused:#}"), "chaos: crash: payment-service is no process of its own");
    stack.stop().await.unwrap();
}

/// The number before `words` in `report`.
fn number(report: &str, words: &str) -> u64 {
    let before = report.split(words).next().filter(|before| before.len() < report.len());
    let number = before.and_then(|before| before.trim().rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {words:?} in {report}"))
}

#[tokio::test]
async fn under_chaos_the_sample_orders_end_as_they_should() {
    let report = samples_under("duplicates,gateway-failures=0.3,poison").await;
    // Six events of each order, and their deadlines on a slow machine. The poison is not delivered twice.
    assert!((18..=21).contains(&number(&report, "events were delivered twice")), "{report}");
    // Each is handled by one group at least.
    assert!(number(&report, "duplicates and did nothing") >= 18, "{report}");
    // email-service does not handle the event that the third of them pretends to be.
    assert_eq!(number(&report, "dead letters"), 8, "{report}");
    assert!(!report.contains("attempts made again: 0\n"), "the first charge fails: {report}");
    assert!(report.contains("=> 2 charges in the gateway's ledger, for 2 orders"), "{report}");
}

#[tokio::test]
async fn brokers_that_drop_and_pause_and_delay_hold_up_orders_and_lose_none() {
    let report = samples_under("delays=20ms,drop-connection=1s,broker-pause=500ms").await;
    assert!(number(&report, "times\n") >= 1, "{report}");
    assert!(number(&report, "times, for 500ms each") >= 1, "{report}");
    assert!(report.contains("=> 2 charges in the gateway's ledger, for 2 orders"), "{report}");
}
