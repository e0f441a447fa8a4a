//! What cannot be handled, and how it comes back.

use std::sync::atomic::Ordering;

use event_runtime::{
    ConsumerBuilder,
    consumer::dead_letter::{DeadLetter, header},
};
use shared_events::Envelope;

use super::scene::{Effect, GROUP, Note, PATIENCE, Scene, headers_of};

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_a_record_is_dead_lettered_and_the_next_of_its_key_goes_on() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    let envelope = scene.publish("a", "fail 99 times").await;
    scene.publish("a", "next").await;
    scene.script.wait_for(1).await;
    assert_eq!(scene.script.of_key("a"), ["next"]);
    assert_eq!(scene.script.exhausted(), ["fail 99 times: not this time"]);

    let records = scene.dead_letters(1).await;
    let record = &records[0];
    assert_eq!(record.key.as_deref(), Some(b"a".as_slice()));
    let note: Note = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    assert_eq!(note.text, "fail 99 times");
    assert_eq!(record.header("ce_id").unwrap(), envelope.id.to_string().as_bytes(), "the original headers are kept");
    assert_eq!(record.header(header::ORIGINAL_TOPIC).unwrap(), b"notes");
    assert_eq!(record.header(header::ORIGINAL_PARTITION).unwrap(), 0_i32.to_be_bytes());
    assert_eq!(record.header(header::ORIGINAL_OFFSET).unwrap(), 0_i64.to_be_bytes());
    assert_eq!(record.header(header::ORIGINAL_TIMESTAMP).unwrap().len(), 8);
    assert_eq!(record.header(header::EXCEPTION_FQCN).unwrap(), b"retries-exhausted");
    let letter = DeadLetter::read(record).unwrap();
    assert_eq!((letter.group.as_str(), letter.error.as_str()), (GROUP, "not this time"));
    assert_eq!((letter.attempts, letter.replay_count), (3, 0));
    assert!(letter.failed_at.is_some());
    scene.wait_for_commit(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_or_cannot_be_decoded_is_dead_lettered_at_once() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    scene.publish("rejected", "reject").await;
    scene.publish_record("bare", Some(b"no headers".to_vec()), Vec::new()).await;
    let note = Note::new("poison", "");
    let headers = headers_of(&Envelope::new(&note, "test", jiff::Timestamp::now()));
    scene.publish_record("poison", Some(b"{\"half\":".to_vec()), headers.clone()).await;
    scene.publish_record("tombstone", None, headers).await;
    scene.publish("fine", "ok").await;
    scene.script.wait_for(1).await;

    let records = scene.dead_letters(4).await;
    let mut letters: Vec<_> = records.iter().map(|record| (record, DeadLetter::read(record).unwrap())).collect();
    letters.sort_by_key(|(_, letter)| letter.original.offset);
    let errors: Vec<_> = letters.iter().map(|(_, letter)| letter.error.as_str()).collect();
    assert_eq!(errors[0], "never");
    assert_eq!(errors[1], "the record cannot be decoded: header ce_specversion is missing");
    assert!(errors[2].starts_with("the record cannot be decoded: its value is no note.written: EOF"), "{errors:?}");
    assert_eq!(errors[3], "the record cannot be decoded: it has no value");
    assert!(letters.iter().all(|(_, letter)| letter.attempts == 1));
    assert_eq!(letters[3].0.value, None, "a tombstone stays one");
    assert_eq!(scene.script.exhausted(), ["reject: never"]);
    assert_eq!(scene.metric("consumer_records_rejected_total"), 4.0);
    scene.wait_for_commit(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_dead_letter_is_handled_once_a_replay() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    let note = Note::new("a", "fail 2 times");
    let envelope = Envelope::new(&note, "test", jiff::Timestamp::now());
    let rejected = Note::new("a", "reject");
    scene.publish_with(&rejected, &envelope, &[]).await;
    scene.dead_letters(1).await;
    // As `eventctl dlt` puts it back, mended; twice, for it may be repeated.
    let replay = [(header::TARGET_GROUP, GROUP), (header::REPLAY_COUNT, "1")];
    scene.publish_with(&note, &envelope, &replay).await;
    scene.publish_with(&note, &envelope, &replay).await;
    // The original again, as after a restart: it counts as handled.
    scene.publish_with(&rejected, &envelope, &[]).await;
    scene.wait_for_commit(4).await;
    assert_eq!(scene.script.of_key("a"), ["fail 2 times"]);
    assert_eq!(scene.metric("consumer_records_duplicate_total"), 2.0);
    assert_eq!(scene.metric("consumer_dead_letters_total"), 1.0);
}

/// Its letter was written, and then the record was delivered again and handled: the member that wrote it had died, or the
/// partition had gone to another one meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_what_was_handled_after_all_is_a_duplicate() {
    let scene = Scene::new().await;
    let effect = ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone()));
    let consumers = [scene.transactional(), effect];
    for (round, builder) in consumers.into_iter().enumerate() {
        let consumer = scene.start(builder);
        let note = Note::new(&format!("key-{round}"), "ok");
        let envelope = Envelope::new(&note, "test", jiff::Timestamp::now());
        scene.publish_with(&note, &envelope, &[]).await;
        scene.publish_with(&note, &envelope, &[(header::TARGET_GROUP, GROUP), (header::REPLAY_COUNT, "1")]).await;
        scene.wait_for_commit(2 * (round as i64 + 1)).await;
        assert_eq!(scene.script.of_key(&note.key), ["ok"]);
        assert_eq!(scene.metric("consumer_records_duplicate_total"), round as f64 + 1.0);
        consumer.shutdown(PATIENCE).await.unwrap();
    }
    assert_eq!(scene.script.effects.load(Ordering::SeqCst), 1, "the effect is not repeated either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_for_a_letter_leaves_one_without_its_value() {
    let scene = Scene::new().await;
    let _consumer = scene.start(scene.transactional());
    // Just below librdkafka's limit of 1,000,000 bytes, and above it with a letter's headers.
    scene.publish_record("big", Some(vec![b'x'; 999_800]), Vec::new()).await;
    scene.publish("fine", "ok").await;
    scene.script.wait_for(1).await;

    let records = scene.dead_letters(1).await;
    assert_eq!(records[0].value, None);
    assert_eq!(records[0].header(header::VALUE_OMITTED), Some(b"too-large".as_slice()));
    assert_eq!(DeadLetter::read(&records[0]).unwrap().original.offset, 0);
    scene.wait_for_commit(2).await;
}
