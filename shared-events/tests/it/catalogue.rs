//! Every event type, for the tests that hold something for all of them.

use serde_json::Value;
use shared_events::*;

/// What the tests need to know of an event type.
pub struct Spec {
    pub event_type: &'static str,
    pub topic: Topic,
    /// Decodes and encodes again; also says the key.
    pub round_trip: fn(&str) -> Result<(Value, String), serde_json::Error>,
}

/// A new event is added here; `every_event_of_the_source_is_in_the_catalogue` fails until it is.
pub fn events() -> Vec<Spec> {
    vec![
        spec::<OrderCreated>(),
        spec::<OrderCompleted>(),
        spec::<OrderCancelled>(),
        spec::<OrderDeadlineReached>(),
        spec::<PaymentSucceeded>(),
        spec::<PaymentFailed>(),
        spec::<PaymentRefunded>(),
        spec::<StockReserved>(),
        spec::<StockRejected>(),
        spec::<StockReleased>(),
        spec::<StockCommitted>(),
        spec::<MailSent>(),
    ]
}

fn spec<E: Event>() -> Spec {
    fn round_trip<E: Event>(json: &str) -> Result<(Value, String), serde_json::Error> {
        let event: E = serde_json::from_str(json)?;
        Ok((serde_json::to_value(&event)?, event.key()))
    }
    Spec { event_type: E::TYPE, topic: E::TOPIC, round_trip: round_trip::<E> }
}

/// The source names its event types in string literals, in an `Event` implementation or in a macro that makes one.
#[test]
fn every_event_of_the_source_is_in_the_catalogue() {
    let mut named = Vec::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = file.unwrap().path();
        // A group's name with its purpose looks like an event's type.
        if path.ends_with("topics.rs") {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        named.extend(
            code.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(|text| is_type(text)).map(str::to_owned),
        );
    }
    named.sort();
    let mut known: Vec<&str> = events().iter().map(|event| event.event_type).collect();
    known.sort();
    assert_eq!(named, known);
}

#[test]
fn every_event_is_on_a_declared_topic_and_every_topic_carries_one() {
    let events = events();
    for event in &events {
        assert!(topics::TOPICS.contains(&event.topic), "{} is on {}", event.event_type, event.topic.name);
    }
    for topic in topics::TOPICS {
        assert!(events.iter().any(|event| event.topic == *topic), "nothing is published to {}", topic.name);
    }
}

fn is_type(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    // What an event is about is one word; a service, and so a consumer group, has a dash there.
    text.split_once('.').is_some_and(|(subject, verb)| word(subject) && verb.split('-').all(word))
}
