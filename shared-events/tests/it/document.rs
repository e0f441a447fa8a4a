//! docs/EVENTS.md says what the code says: nothing missing, nothing invented.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared_events::{Envelope, Event, OrderCreated, header, topics};

use crate::{catalogue::events, golden};

const DOCUMENT: &str = include_str!("../../../docs/EVENTS.md");

#[test]
fn the_topics_table_is_the_declared_topics() {
    let documented: BTreeMap<String, Vec<String>> =
        table("## Topics").into_iter().map(|row| (unquoted(&row[0]), row[1..].to_vec())).collect();
    for topic in topics::TOPICS {
        let row = documented.get(topic.name).unwrap_or_else(|| panic!("topic {} is not documented", topic.name));
        assert_eq!(row[0], topic.partitions.to_string(), "partitions of {}", topic.name);
        assert_eq!(row[1], format!("{} days", topic.retention.as_secs() / 86_400), "retention of {}", topic.name);
        let types = events().into_iter().filter(|event| event.topic == *topic).map(|event| event.event_type);
        assert_eq!(quoted_list(&row[2]), types.map(str::to_owned).collect(), "events of {}", topic.name);
        let groups = topics::GROUPS.iter().filter(|group| group.topics.contains(topic));
        assert_eq!(
            quoted_list(&row[4]),
            groups.map(|group| group.name.to_owned()).collect(),
            "readers of {}",
            topic.name
        );
    }
    assert_eq!(documented.len(), topics::TOPICS.len(), "topics that do not exist are documented");
}

#[test]
fn every_dead_letter_topic_is_listed() {
    let documented = column("## Dead letters");
    let declared = topics::GROUPS
        .iter()
        .flat_map(|group| group.topics.iter().map(|topic| topics::dead_letter_topic(topic.name, group.name)));
    assert_eq!(documented, declared.collect());
}

#[test]
fn the_headers_table_is_the_headers_that_are_written() {
    let full = Envelope {
        correlation_id: Some(shared_events::CorrelationId::new()),
        causation_id: Some(shared_events::EventId::new()),
        attempt: Some(1),
        traceparent: Some(String::new()),
        tracestate: Some(String::new()),
        ..sample_record().0
    };
    let written: BTreeSet<String> = full.to_headers().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(column("## Headers"), written);
    for row in table("## Headers") {
        let required = [header::SPEC_VERSION, header::ID, header::SOURCE, header::TYPE, header::TIME];
        let expected = if required.contains(&unquoted(&row[0]).as_str()) { "yes" } else { "no" };
        assert_eq!(row[1], expected, "whether {} is required", row[0]);
    }
}

#[test]
fn every_event_has_a_section_with_its_fields_and_no_other() {
    let golden = golden::newest();
    let documented: BTreeSet<String> =
        DOCUMENT.lines().filter_map(|line| line.strip_prefix("### ")).map(unquoted).collect();
    assert_eq!(documented, golden.keys().cloned().collect());
    for (event_type, written) in golden {
        let mut fields = BTreeSet::new();
        paths("", &written, &mut fields);
        assert_eq!(column(&format!("### `{event_type}`")), fields, "fields of {event_type}");
    }
}

#[test]
fn the_sample_record_is_one_that_services_write_and_read() {
    let (envelope, value) = sample_record();
    assert_eq!(envelope.event_type, OrderCreated::TYPE);
    let golden = &golden::newest()[OrderCreated::TYPE];
    assert_eq!(&value, golden);
    assert_eq!(envelope.subject.as_deref(), golden["orderId"].as_str());
}

/// The envelope and the value of the sample: a block of `name: value` lines, and a block of JSON.
fn sample_record() -> (Envelope, Value) {
    let section = section("## A record");
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    let [headers, value] = blocks[..] else { panic!("a record is two blocks") };
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    let envelope = Envelope::from_headers(headers.map(|(name, value)| (name, Some(value.as_bytes())))).unwrap();
    (envelope, serde_json::from_str(value.trim_start_matches("json")).unwrap())
}

/// The text from a heading to the next of the same or a higher rank.
fn section(heading: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading:?} in docs/EVENTS.md"));
    let text = &DOCUMENT[start + heading.len()..];
    let rank = heading.chars().take_while(|char| *char == '#').count();
    let ends = (1..=rank).filter_map(|rank| text.find(&format!("\n{} ", "#".repeat(rank))));
    &text[..ends.min().unwrap_or(text.len())]
}

/// The cells of the first table of a section, without head and rule.
fn table(heading: &str) -> Vec<Vec<String>> {
    let rows =
        section(heading).lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

/// The first column of that table, as a set.
fn column(heading: &str) -> BTreeSet<String> {
    table(heading).iter().map(|row| unquoted(&row[0])).collect()
}

fn unquoted(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// `` `a`, `b` `` as a set.
fn quoted_list(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every path of a value that has no fields of its own, such as `items[].unitPrice.minor`.
fn paths(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            paths(&if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| paths(&format!("{prefix}[]"), value, found)),
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}
