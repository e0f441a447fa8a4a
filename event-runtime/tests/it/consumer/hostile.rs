//! Records that nobody should have written.

use std::time::Duration;

use event_runtime::{
    Clock, ConsumerBuilder, HandlerError, HeaderName, RawHandler, Record, consumer::dead_letter::DeadLetter,
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use shared_events::{Envelope, header};
use test_support::eventually;

use super::scene::{Effect, GROUP, Note, PATIENCE, Scene, headers_of};

type Headers = Vec<(HeaderName, Option<Vec<u8>>)>;

/// The headers of a good note.
fn good() -> Headers {
    headers_of(&Envelope::new(&Note::new("a", "ok"), "test", Clock::system().now()))
}

fn replaced(name: &str, value: Option<&[u8]>) -> Headers {
    let mut headers = good();
    headers.retain(|(other, _)| other != name);
    headers.push((name.to_owned().into(), value.map(<[u8]>::to_vec)));
    headers
}

fn without(name: &str) -> Headers {
    good().into_iter().filter(|(other, _)| other != name).collect()
}

fn repeated(name: &str) -> Headers {
    let mut headers = good();
    let again = headers.iter().find(|(other, _)| other == name).unwrap().clone();
    headers.push(again);
    headers
}

fn value_of(note: &Note) -> Option<Vec<u8>> {
    Some(serde_json::to_vec(note).unwrap())
}

/// Each with what is wrong about it, which is its key too.
fn on_purpose() -> Vec<(&'static str, Option<Vec<u8>>, Headers)> {
    let spoilt = |what, headers| (what, value_of(&Note::new(what, "ok")), headers);
    vec![
        ("key of another event", value_of(&Note::new("a", "ok")), good()),
        ("empty value", Some(Vec::new()), good()),
        ("zeroes", Some(vec![0; 900_000]), good()),
        ("no UTF-8", Some(vec![0xff, 0xfe, 0x80]), good()),
        ("no JSON", Some(b"{".to_vec()), good()),
        ("other JSON", Some(b"[1,2]".to_vec()), good()),
        ("deep JSON", Some(b"[".repeat(100_000)), good()),
        ("tombstone", None, good()),
        spoilt("no headers", Headers::new()),
        spoilt("no id", without(header::ID)),
        spoilt("no type", without(header::TYPE)),
        spoilt("id that is none", replaced(header::ID, Some(b"42"))),
        spoilt("id that is no text", replaced(header::ID, Some(&[0xff]))),
        spoilt("id without a value", replaced(header::ID, None)),
        spoilt("two ids", repeated(header::ID)),
        spoilt("two types", repeated(header::TYPE)),
        spoilt("content that is no JSON", replaced(header::CONTENT_TYPE, Some(b"application/xml"))),
        spoilt("future version", replaced(header::SPEC_VERSION, Some(b"2.0"))),
        spoilt("time out of range", replaced(header::TIME, Some(b"+99999-01-01T00:00:00Z"))),
        spoilt("time that is none", replaced(header::TIME, Some(b"yesterday"))),
    ]
}

fn bytes(random: &mut StdRng, most: usize) -> Vec<u8> {
    (0..random.random_range(0..most)).map(|_| random.random()).collect()
}

/// Any bytes, under headers that are good, spoilt, or any bytes as well.
fn by_chance(random: &mut StdRng) -> (Option<Vec<u8>>, Headers) {
    let mut headers = if random.random_bool(0.7) { good() } else { Headers::new() };
    for (_, value) in &mut headers {
        if random.random_bool(0.1) {
            *value = random.random_bool(0.8).then(|| bytes(random, 40));
        }
    }
    for _ in 0..random.random_range(0..4) {
        let name = format!("x-{}", random.random::<u32>());
        headers.push((name.into(), random.random_bool(0.8).then(|| bytes(random, 40))));
    }
    let value = random.random_bool(0.9).then(|| bytes(random, 300));
    (value, headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_record_holds_it_is_accounted_for_and_the_next_is_handled() {
    const BY_CHANCE: usize = 300;
    let seed = std::env::var("HOSTILE_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("HOSTILE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let scene = Scene::new().await;
    let consumer = scene.start(scene.transactional().flood_limits(None));
    let mut purposes = Vec::new();
    for (what, value, headers) in on_purpose() {
        scene.publish_record(what, value, headers).await;
        purposes.push(what);
    }
    scene.publish_keyed(None, value_of(&Note::new("a", "no key")), good()).await;
    for number in 0..BY_CHANCE {
        let (value, headers) = by_chance(&mut random);
        scene.publish_record(&format!("chance-{}", number % 20), value, headers).await;
    }
    scene.publish("good", "ok").await;
    scene.script.wait_for(1).await;
    assert_eq!(scene.script.handled(), ["good:ok"]);
    let all = (purposes.len() + 1 + BY_CHANCE + 1) as i64;
    scene.wait_for_commit(all).await;
    let count = |name: &str| scene.metric(name) as i64;
    let accounted = || {
        let skipped = count("consumer_records_skipped_total") + count("consumer_records_duplicate_total");
        1 + skipped + count("consumer_dead_letters_total")
    };
    eventually(PATIENCE, "accounts", async || if accounted() == all { Ok(()) } else { Err(accounted()) }).await;
    let letters = scene.dead_letters(scene.metric("consumer_dead_letters_total") as usize).await;
    for what in purposes {
        let letter = letters.iter().find(|letter| letter.key.as_deref() == Some(what.as_bytes()));
        assert!(letter.is_some(), "{what}: not in the dead-letter topic");
    }
    assert!(letters.iter().any(|letter| letter.key.is_none()), "no key: not in the dead-letter topic");
    consumer.ready().unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// The reason of every dead letter, in the order of the records.
async fn reasons(scene: &Scene, count: usize) -> Vec<String> {
    let letters = scene.dead_letters(count).await;
    let mut letters: Vec<_> = letters.iter().map(|letter| DeadLetter::read(letter).unwrap()).collect();
    letters.sort_by_key(|letter| letter.original.offset);
    letters.into_iter().map(|letter| letter.error).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_under_another_key_than_its_events_is_a_dead_letter_that_names_both() {
    for kind in ["transactional", "batched", "effect", "plain"] {
        let scene = Scene::new().await;
        let _consumer = scene.start(match kind {
            "transactional" => scene.transactional(),
            "batched" => scene.batched(),
            "effect" => ConsumerBuilder::new(GROUP).effect(&scene.database, Effect(scene.script.clone())),
            _ => scene.plain(),
        });
        let value = value_of(&Note::new("a", "misplaced"));
        scene.publish_keyed(Some("b"), value.clone(), good()).await;
        scene.publish_keyed(None, value, good()).await;
        scene.publish_keyed(Some("\u{1b}[2J"), value_of(&Note::new(&"\r\n".repeat(5000), "ok")), good()).await;
        scene.publish("a", "ok").await;
        scene.wait_for_commit(4).await;
        assert_eq!(scene.script.handled(), ["a:ok"], "{kind}");
        assert_eq!(scene.script.exhausted(), [""; 0], "{kind}: nobody knows whose turn it is");
        let reasons = reasons(&scene, 3).await;
        assert_eq!(reasons[0], r#"the record's key is "b", but the key of its note.written is "a""#, "{kind}");
        assert_eq!(reasons[1], r#"the record has no key, but the key of its note.written is "a""#, "{kind}");
        assert!(reasons[2].starts_with(r#"the record's key is "·[2J", but"#), "{kind}: {}", reasons[2]);
        assert!(reasons[2].ends_with("···…\"") && reasons[2].chars().count() < 300, "{kind}: {}", reasons[2]);
    }
}

/// Only whoever knows the event knows its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_raw_record_may_have_any_key() {
    struct Raw(tokio::sync::mpsc::Sender<Option<Vec<u8>>>);

    impl RawHandler for Raw {
        async fn handle(&self, record: &Record) -> Result<(), HandlerError> {
            self.0.send(record.key.clone()).await.map_err(HandlerError::retry)
        }
    }

    let scene = Scene::new().await;
    let (seen, mut keys) = tokio::sync::mpsc::channel(1);
    let _consumer = scene.start(ConsumerBuilder::new(GROUP).raw(vec!["notes".to_owned()], Raw(seen)));
    scene.publish_keyed(Some("b"), value_of(&Note::new("a", "ok")), good()).await;
    assert_eq!(keys.recv().await, Some(Some(b"b".to_vec())));
}
