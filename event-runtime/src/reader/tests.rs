use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::DefaultProducerContext,
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};

use super::*;
use crate::embedded::EmbeddedBroker;

const NOW: &str = "2026-01-31T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A broker with two topics of two partitions: every partition has ten records, a minute apart, the last at `NOW`.
fn broker_with_records() -> EmbeddedBroker {
    let broker = EmbeddedBroker::start(1).unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = broker.config().client().unwrap().create().unwrap();
    for topic in ["left", "right"] {
        broker.create_topic(topic, 2).unwrap();
        for number in 0..20 {
            let minutes_ago = 9 - number / 2;
            let (key, value) = (format!("{topic}-{number}"), number.to_string());
            let headers = OwnedHeaders::new()
                .insert(Header { key: "number", value: Some(&value) })
                .insert(Header { key: "nothing", value: None::<&str> });
            let record = BaseRecord::to(topic)
                .partition((number % 2) as i32)
                .key(&key)
                .payload(&value)
                .headers(headers)
                .timestamp(now().as_millisecond() - minutes_ago * 60_000);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    broker
}

/// Everything from `from` to the end, as `topic-number`.
fn read(broker: &EmbeddedBroker, topics: &[&str], from: &str) -> Vec<String> {
    let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
    let mut reader = Reader::open(&broker.config(), &topics, from.parse().unwrap(), now()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut keys = Vec::new();
    while !reader.caught_up() {
        assert!(Instant::now() < deadline, "not at the end after 20 s; read {keys:?}");
        if let Some(record) = reader.next(Duration::from_millis(100)).unwrap() {
            keys.push(String::from_utf8(record.key.unwrap()).unwrap());
        }
    }
    keys.sort_by_key(|key| {
        key.split_once('-').map(|(topic, number)| (topic.to_owned(), number.parse::<i64>().unwrap()))
    });
    keys
}

#[test]
fn every_position_reads_to_the_end() {
    let broker = broker_with_records();
    let keys = |topic: &str, numbers: std::ops::Range<i64>| numbers.map(|n| format!("{topic}-{n}")).collect::<Vec<_>>();
    assert_eq!(read(&broker, &["left", "right"], "start"), [keys("left", 0..20), keys("right", 0..20)].concat());
    assert_eq!(read(&broker, &["left"], "end"), keys("left", 0..0));
    assert_eq!(read(&broker, &["left"], "7"), keys("left", 14..20));
    assert_eq!(read(&broker, &["left"], "-1"), keys("left", 18..20));
    // The embedded broker answers every look-up by time with "the end": these hold only because that is noticed.
    assert_eq!(read(&broker, &["left"], "@-3m"), keys("left", 12..20));
    assert_eq!(read(&broker, &["right"], "@2026-01-31T11:59:30Z"), keys("right", 18..20));
    assert_eq!(read(&broker, &["left"], "@2026-01-31T12:00:01Z"), keys("left", 0..0));
}

#[test]
fn records_come_whole() {
    let broker = broker_with_records();
    let mut reader = Reader::open(&broker.config(), &["left".to_owned()], Position::Last(1), now()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let record = loop {
        assert!(Instant::now() < deadline, "no record after 20 s");
        match reader.next(Duration::from_millis(100)).unwrap() {
            Some(record) if record.origin.partition == 1 => break record,
            _ => {}
        }
    };
    let expected = Record {
        origin: Origin { topic: "left".into(), partition: 1, offset: 9 },
        timestamp: Some(now()),
        key: Some(b"left-19".to_vec()),
        value: Some(b"19".to_vec()),
        headers: vec![("number".into(), Some(b"19".to_vec())), ("nothing".into(), None)],
    };
    assert_eq!(record, expected);
}

#[test]
fn a_topic_that_is_not_there_is_named_beside_those_that_are() {
    let broker = broker_with_records();
    let error = Reader::open(&broker.config(), &["lef".to_owned()], Position::Start, now()).err().unwrap();
    assert_eq!(error.to_string(), "topic \"lef\" does not exist; there are: left, right");
    let topics = Brokers::new(&broker.config(), None).unwrap().topics().unwrap();
    assert!(!topics.contains_key("lef"), "asking must not create it: {topics:?}");
}
