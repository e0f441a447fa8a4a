//! Handlers and their time: what they are told of it, and what becomes of those that do not keep to it.

use std::time::Duration;

use event_runtime::ConsumerBuilder;

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
