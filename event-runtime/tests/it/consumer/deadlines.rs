//! Handlers and their time: what they are told of it, and what becomes of those that do not give their thread back.

use std::{sync::atomic::Ordering, time::Duration};

use event_runtime::{
    ConsumerBuilder,
    consumer::{InFlightState, NotReady},
};
use test_support::eventually;

use super::scene::{Effect, GROUP, PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_how_long_its_attempt_may_run() {
    const TIMEOUT: Duration = Duration::from_secs(600);
    let scene = Scene::new().await;
    let effect = ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone()));
    for (round, builder) in [scene.plain(), scene.transactional(), effect].into_iter().enumerate() {
        let consumer = scene.start(builder.handler_timeout(TIMEOUT));
        scene.publish("a", "ok").await;
        scene.wait_for_commit(round as i64 + 1).await;
        let (_, remaining) = *scene.script.deadlines.lock().unwrap().last().unwrap();
        assert!(remaining <= TIMEOUT && remaining > TIMEOUT / 2, "{remaining:?}");
        consumer.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_is_reported_holds_its_key_and_has_timed_out_when_it_returns() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.plain().handler_timeout(Duration::from_millis(500)));
    scene.publish("stuck", "block").await;
    scene.publish("stuck", "behind").await;
    let overrun = eventually(PATIENCE, "report", async || match consumer.ready() {
        Err(NotReady::Blocked { group: GROUP, overrun }) => Ok(overrun),
        other => Err(other),
    })
    .await;
    assert_eq!((overrun.event.as_str(), overrun.key.as_str()), ("note.written", "stuck"));
    assert_eq!(overrun.origin.to_string(), "notes[0]@0");
    assert!(overrun.seconds >= 5, "{overrun}");
    assert_eq!((scene.metric("consumer_blocked_threads"), scene.metric("consumer_overruns_total")), (1.0, 1.0));

    for number in 0..10 {
        scene.publish(&format!("free-{number}"), "ok").await;
    }
    scene.script.wait_for(10).await;
    assert_eq!(scene.script.begun.load(Ordering::SeqCst), 11, "it does not run beside itself");
    let states: Vec<_> = consumer.inspect("stuck").await.iter().map(|record| record.state).collect();
    assert_eq!(states, [InFlightState::Running, InFlightState::Queued]);
    assert_eq!((scene.committed(), scene.metric("consumer_records_retried_total")), (0, 0.0));

    scene.script.let_go();
    scene.wait_for_commit(12).await;
    assert_eq!(scene.script.of_key("stuck"), ["block", "block", "behind"]);
    assert_eq!(scene.script.attempts()[10..], [1, 2, 1]);
    assert_eq!((scene.metric("consumer_blocked_threads"), scene.metric("consumer_records_retried_total")), (0.0, 1.0));
    consumer.ready().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_answered_after_the_deadline_is_a_failure_and_nothing_of_it_is_kept() {
    for kind in ["transactional", "batched", "effect", "plain"] {
        let scene = Scene::new().await;
        let notes: &[_] = match kind {
            // The second and third share a transaction: they come while the first has one to itself.
            "batched" => &[("first", "slow 500"), ("a", "overdue"), ("b", "ok")],
            // On SQLite others would wait for the transaction, and run out of time as well.
            _ => &[("a", "overdue")],
        };
        for (key, text) in notes {
            scene.publish(key, text).await;
        }
        let builder = match kind {
            "transactional" => scene.transactional(),
            "batched" => scene.batched(),
            "effect" => ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone())),
            _ => scene.plain(),
        };
        let _consumer = scene.start(builder.handler_timeout(Duration::from_secs(1)));
        scene.wait_for_commit(notes.len() as i64).await;
        assert_eq!(scene.metric("consumer_records_retried_total"), 1.0, "{kind}");
        assert_eq!(scene.metric("consumer_records_duplicate_total"), 0.0, "{kind}");
        assert_eq!(scene.metric("consumer_records_handled_total"), notes.len() as f64, "{kind}");
        assert_eq!(scene.script.attempts().into_iter().max(), Some(2), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_leaves_its_group_without_a_handler_that_blocks_its_thread() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.plain());
    scene.publish("stuck", "block").await;
    scene.publish("free", "ok").await;
    scene.script.wait_for(1).await;
    eventually(PATIENCE, "attempt", async || match scene.script.begun.load(Ordering::SeqCst) {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    consumer.shutdown(Duration::from_millis(300)).await.unwrap();
    scene.script.let_go();
    assert_eq!(scene.committed(), 0, "what was left behind is not committed");
}
