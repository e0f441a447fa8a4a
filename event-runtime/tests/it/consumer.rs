//! The consumer on the embedded broker.

mod batch_speed;
mod batches;
mod crashes;
mod dead_letters;
mod deadlines;
mod failures;
mod hand_over;
mod hostile;
mod lost;
mod patience;
mod poison_key;
mod progress;
pub mod scene;

use std::{sync::atomic::Ordering, time::Duration};

use event_runtime::{ConsumerBuilder, HandlerError, RawHandler, Record};
use scene::{Effect, GROUP, Note, Scene, Script};
use shared_events::Envelope;
use test_support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_handled_in_order_and_their_offsets_committed() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.batched());
    for number in 0..20 {
        scene.publish("a", &number.to_string()).await;
    }
    scene.script.wait_for(20).await;
    assert_eq!(scene.script.of_key("a"), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    scene.wait_for_commit(20).await;
    consumer.ready().unwrap();
    assert_eq!(scene.metric("consumer_records_handled_total"), 20.0);
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(consumer.ready().is_err(), "a consumer that has stopped is not ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_event_is_handled_once() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.batched());
    let (first, second) = (Note::new("a", "first"), Note::new("a", "second"));
    let of_first = Envelope::new(&first, "test", jiff::Timestamp::now());
    let of_second = Envelope::new(&second, "test", jiff::Timestamp::now());
    // A, B, A: it is a set of ids, not the last one.
    scene.publish_with(&first, &of_first, &[]).await;
    scene.publish_with(&second, &of_second, &[]).await;
    scene.publish_with(&first, &of_first, &[]).await;
    scene.wait_for_commit(3).await;
    assert_eq!(scene.script.of_key("a"), ["first", "second"]);
    assert_eq!(scene.metric("consumer_records_duplicate_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_is_repeated_until_it_is_completed_and_not_after() {
    let scene = Scene::new().await;
    let builder = ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone()));
    let _consumer = scene.start(builder);
    let note = Note::new("a", "fail 1 to complete");
    let envelope = Envelope::new(&note, "test", jiff::Timestamp::now());
    scene.publish_with(&note, &envelope, &[]).await;
    scene.publish_with(&note, &envelope, &[]).await;
    scene.publish("a", "nothing").await;
    scene.wait_for_commit(3).await;
    assert_eq!(scene.script.effects.load(Ordering::SeqCst), 2, "once more after the failed completion");
    assert_eq!(scene.script.of_key("a").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_handler_takes_is_skipped_and_counted() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    let note = Note::new("a", "for others");
    let mut envelope = Envelope::new(&note, "test", jiff::Timestamp::now());
    scene.publish_with(&note, &envelope, &[("target-group", "another-service")]).await;
    envelope.event_type = "note.shredded".to_owned();
    scene.publish_with(&note, &envelope, &[]).await;
    scene.publish("a", "for us").await;
    scene.wait_for_commit(3).await;
    assert_eq!(scene.script.of_key("a"), ["for us"]);
    assert_eq!(scene.metric("consumer_records_skipped_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_handlers_are_given_records_as_they_are() {
    struct Keep(tokio::sync::mpsc::Sender<Record>);

    impl RawHandler for Keep {
        async fn handle(&self, record: &Record) -> Result<(), HandlerError> {
            self.0.send(record.clone()).await.map_err(HandlerError::retry)
        }
    }

    let scene = Scene::new().await;
    let (keep, mut kept) = tokio::sync::mpsc::channel(1);
    let _consumer = scene.start(scene.transactional().raw(vec![scene::DEAD_LETTERS.to_owned()], Keep(keep)));
    scene.publish("a", "reject").await;
    let record = tokio::time::timeout(scene::PATIENCE, kept.recv()).await.unwrap().unwrap();
    assert_eq!(record.key.as_deref(), Some(b"a".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_waits_can_be_inspected() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.transactional());
    scene.publish("a", "slow 400").await;
    scene.publish("a", "next").await;
    let in_flight = eventually(scene::PATIENCE, "two records in hand", async || {
        let in_flight = consumer.inspect("a").await;
        if in_flight.len() == 2 { Ok(in_flight) } else { Err(in_flight) }
    })
    .await;
    let shown = serde_json::to_value(&in_flight).unwrap();
    assert_eq!(shown[0]["state"], "running");
    assert_eq!(shown[1]["state"], "queued");
    assert_eq!(shown[1]["offset"], 1);
    assert!(consumer.inspect("b").await.is_empty());
}

#[test]
#[should_panic(expected = "note.written has a handler already")]
fn two_handlers_of_one_event_type_are_refused() {
    let script = Script::default();
    ConsumerBuilder::new(GROUP).plain(scene::Plain(script.clone())).plain(scene::Plain(script));
}
