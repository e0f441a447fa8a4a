//! `eventctl replay-offsets` on a service's group: refused while it has members, harmless when it has none.

use clap::Parser;
use end_to_end_tests::{OrderRequest, Stack};
use test_support::eventually;

use crate::{SOON, stack};

/// Moves email-service's group to the start; true when that worked.
async fn to_the_start(stack: &Stack, more: &[&str]) -> bool {
    let brokers = stack.servers().kafka().brokers;
    let line = ["eventctl", "replay-offsets", "email-service", "--to", "start", "--execute", "-b", &brokers];
    let command = eventctl::Cli::parse_from([&line, more].concat());
    let ended = tokio::task::spawn_blocking(move || eventctl::run(command)).await.unwrap();
    format!("{ended:?}") == format!("{:?}", std::process::ExitCode::SUCCESS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_moved_only_without_members_and_handles_nothing_twice() {
    moved_only_without_members(stack().start().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_the_new_protocol_is_moved_only_without_members_too() {
    let stack = stack().with("email-service", &["-X", "group.protocol=consumer"]);
    moved_only_without_members(stack.start().await.unwrap()).await;
}

async fn moved_only_without_members(mut stack: Stack) {
    let id = stack.place(&OrderRequest::of("COFFEE-1KG")).await.unwrap();
    stack.at_rest(&id, SOON).await;
    stack.wait_until_handled(SOON).await;

    assert!(!to_the_start(&stack, &[]).await, "email-service runs");
    assert_eq!(stack.lag().await.unwrap(), 0, "it stands where it stood");

    if !stack.servers().are_real() {
        // The embedded broker never lets an outsider speak for a group that once had members.
        return;
    }
    stack.stop("email-service").await.unwrap();
    eventually(
        SOON,
        "group without members",
        async || if to_the_start(&stack, &[]).await { Ok(()) } else { Err("refused") },
    )
    .await;
    assert_eq!(stack.lag().await.unwrap(), 2, "both events of the order wait again");
    stack.launch("email-service").await.unwrap();
    stack.wait_until_handled(SOON).await;
    assert_eq!(stack.smtp().mails().len(), 1, "the inbox remembers");

    stack.stop("email-service").await.unwrap();
    let database = stack.servers().database_url("email-service").await.unwrap();
    let reprocess = ["--reprocess", "--database-url", &database];
    eventually(SOON, "group without members", async || {
        if to_the_start(&stack, &reprocess).await { Ok(()) } else { Err("refused") }
    })
    .await;
    stack.launch("email-service").await.unwrap();
    stack.wait_until_handled(SOON).await;
    assert_eq!(stack.smtp().mails().len(), 1, "the inbox has forgotten, and email-service's own rows have not");
    assert_eq!(stack.verify().await.unwrap().violations, []);
}
