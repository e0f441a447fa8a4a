//! Records that nobody should have written.

use std::time::Duration;

use event_runtime::Clock;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use shared_events::{Envelope, header};
use test_support::eventually;

use super::scene::{Note, PATIENCE, Scene, headers_of};

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// The headers of a good note.
fn good() -> Headers {
    headers_of(&Envelope::new(&Note::new("a", "ok"), "test", Clock::system().now()))
}

fn replaced(name: &str, value: Option<&[u8]>) -> Headers {
    let mut headers = good();
    headers.retain(|(other, _)| other != name);
    headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
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

/// Each with what is wrong about it.
fn on_purpose() -> Vec<(&'static str, Option<Vec<u8>>, Headers)> {
    let value = || Some(serde_json::to_vec(&Note::new("a", "ok")).unwrap());
    vec![
        ("empty value", Some(Vec::new()), good()),
        ("zeroes", Some(vec![0; 900_000]), good()),
        ("no UTF-8", Some(vec![0xff, 0xfe, 0x80]), good()),
        ("no JSON", Some(b"{".to_vec()), good()),
        ("other JSON", Some(b"[1,2]".to_vec()), good()),
        ("deep JSON", Some(b"[".repeat(100_000)), good()),
        ("tombstone", None, good()),
        ("no headers", value(), Headers::new()),
        ("no id", value(), without(header::ID)),
        ("no type", value(), without(header::TYPE)),
        ("id that is none", value(), replaced(header::ID, Some(b"42"))),
        ("id that is no text", value(), replaced(header::ID, Some(&[0xff]))),
        ("id without a value", value(), replaced(header::ID, None)),
        ("two ids", value(), repeated(header::ID)),
        ("two types", value(), repeated(header::TYPE)),
        ("content that is no JSON", value(), replaced(header::CONTENT_TYPE, Some(b"application/xml"))),
        ("future version", value(), replaced(header::SPEC_VERSION, Some(b"2.0"))),
        ("time out of range", value(), replaced(header::TIME, Some(b"+99999-01-01T00:00:00Z"))),
        ("time that is none", value(), replaced(header::TIME, Some(b"yesterday"))),
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
        headers.push((name, random.random_bool(0.8).then(|| bytes(random, 40))));
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
    for number in 0..BY_CHANCE {
        let (value, headers) = by_chance(&mut random);
        scene.publish_record(&format!("chance-{}", number % 20), value, headers).await;
    }
    scene.publish("good", "ok").await;
    scene.script.wait_for(1).await;
    assert_eq!(scene.script.handled(), ["good:ok"]);
    let all = (purposes.len() + BY_CHANCE + 1) as i64;
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
    consumer.ready().unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}
