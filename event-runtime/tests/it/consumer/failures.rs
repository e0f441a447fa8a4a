//! Retries, outages, panics and hangs.

use std::{sync::atomic::Ordering, time::Duration};

use test_support::eventually;

use super::scene::{PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_holds_only_its_key() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    scene.publish("stuck", "fail 2 times").await;
    scene.publish("stuck", "behind").await;
    for number in 0..10 {
        scene.publish(&format!("free-{number}"), "ok").await;
    }
    scene.script.wait_for(12).await;
    let handled = scene.script.handled();
    assert_eq!(handled[10..], ["stuck:fail 2 times", "stuck:behind"], "the others went first: {handled:?}");
    assert_eq!(scene.script.attempts()[10..], [3, 1]);
    assert_eq!(scene.metric("consumer_records_retried_total"), 2.0);
    scene.wait_for_commit(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_and_a_hang_are_failures_of_their_records_only() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.plain().handler_timeout(Duration::from_secs(1)));
    scene.publish("a", "panic").await;
    scene.publish("b", "hang").await;
    scene.publish("c", "ok").await;
    scene.script.wait_for(3).await;
    assert_eq!(scene.script.of_key("a"), ["panic"], "handled at its second attempt");
    assert_eq!(scene.script.of_key("b"), ["hang"], "handled at its second attempt");
    scene.wait_for_commit(3).await;
    assert_eq!(scene.metric("consumer_records_retried_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_pauses_and_uses_up_no_attempts() {
    let scene = Scene::new().await;
    scene.script.away.store(true, Ordering::SeqCst);
    let consumer = scene.start(scene.transactional());
    for key in ["a", "b", "c"] {
        scene.publish(key, "ok").await;
    }
    eventually(PATIENCE, "three held keys", async || match scene.metric("consumer_blocked_keys") {
        3.0 => Ok(()),
        other => Err(other),
    })
    .await;
    // Long enough for more probes than a record has attempts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.metric("consumer_outages_total"), 1.0);
    assert_eq!(scene.metric("consumer_dead_letters_total"), 0.0);
    let in_flight = consumer.inspect("a").await;
    assert_eq!(in_flight[0].attempt, 1);
    scene.script.away.store(false, Ordering::SeqCst);
    scene.script.wait_for(3).await;
    assert_eq!(scene.script.attempts(), [1, 1, 1]);
    scene.wait_for_commit(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_is_read_again() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.transactional());
    scene.publish("a", "before").await;
    scene.script.wait_for(1).await;
    scene.broker.cluster().broker_down(1).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.broker.cluster().broker_up(1).unwrap();
    scene.publish("a", "after").await;
    scene.script.wait_for(2).await;
    assert_eq!(scene.script.of_key("a"), ["before", "after"]);
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}
