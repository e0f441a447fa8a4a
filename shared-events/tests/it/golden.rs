//! `tests/golden/<type>.v<n>.json` are events as they were published. They are never changed: a reader of today must
//! understand all of them.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Value, json};
use shared_events::{Event, OrderCreated, Pattern};

use crate::catalogue::events;

/// The golden files: event type, version, content.
pub fn files() -> Vec<(String, u32, String)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let parts = name.strip_suffix(".json").and_then(|stem| stem.rsplit_once(".v"));
        let (event_type, version) = parts.unwrap_or_else(|| panic!("{name} is not named <type>.v<number>.json"));
        files.push((event_type.to_owned(), version.parse().unwrap(), std::fs::read_to_string(&path).unwrap()));
    }
    files.sort();
    files
}

/// The newest golden file of every event type.
pub fn newest() -> BTreeMap<String, Value> {
    // Sorted by version within a type, so that a later one replaces an earlier one.
    files().into_iter().map(|(event_type, _, content)| (event_type, serde_json::from_str(&content).unwrap())).collect()
}

#[test]
fn every_event_has_a_golden_file_and_every_golden_file_an_event() {
    let files = newest();
    let mut types: Vec<&str> = events().iter().map(|event| event.event_type).collect();
    types.sort();
    assert_eq!(files.keys().collect::<Vec<_>>(), types);
}

#[test]
fn every_golden_file_still_decodes_under_the_same_key() {
    for (event_type, version, content) in files() {
        let event = events().into_iter().find(|event| event.event_type == event_type).unwrap();
        let decoded = (event.round_trip)(&content);
        let (_, key) = decoded.unwrap_or_else(|error| panic!("{event_type}.v{version} no longer decodes: {error}"));
        let written: Value = serde_json::from_str(&content).unwrap();
        assert_eq!(written["orderId"], key, "{event_type}.v{version}");
    }
}

#[test]
fn the_newest_golden_file_is_what_is_written_today() {
    for (event_type, written) in newest() {
        let event = events().into_iter().find(|event| event.event_type == event_type).unwrap();
        let (encoded, _) = (event.round_trip)(&written.to_string()).unwrap();
        assert_eq!(encoded, written, "{event_type}: add a golden file of the next version, leave the old ones");
    }
}

#[test]
fn unknown_fields_are_ignored_at_every_depth() {
    for (event_type, written) in newest() {
        let event = events().into_iter().find(|event| event.event_type == event_type).unwrap();
        let mut extended = written.clone();
        add_field(&mut extended);
        let decoded = (event.round_trip)(&extended.to_string());
        assert_eq!(decoded.unwrap_or_else(|error| panic!("{event_type}: {error}")).0, written);
    }
}

#[test]
fn a_missing_field_is_an_error_that_names_it() {
    for (event_type, written) in newest() {
        let event = events().into_iter().find(|event| event.event_type == event_type).unwrap();
        let optional = ["userId", "pattern"];
        for field in written.as_object().unwrap().keys().filter(|field| !optional.contains(&field.as_str())) {
            let mut shortened = written.clone();
            shortened.as_object_mut().unwrap().remove(field);
            let error = (event.round_trip)(&shortened.to_string()).unwrap_err();
            assert!(error.to_string().contains(field), "{event_type} without {field}: {error}");
        }
    }
}

#[test]
fn an_unknown_pattern_decodes_and_is_nobodys() {
    let mut written = newest().remove(OrderCreated::TYPE).unwrap();
    written["pattern"] = json!("telepathy");
    let created: OrderCreated = serde_json::from_value(written).unwrap();
    assert_eq!(created.pattern, Pattern::Unknown);
}

#[test]
fn an_order_without_pattern_or_user_is_choreographed_for_a_guest() {
    let mut written = newest().remove(OrderCreated::TYPE).unwrap();
    written.as_object_mut().unwrap().retain(|field, _| field != "pattern" && field != "userId");
    let created: OrderCreated = serde_json::from_value(written).unwrap();
    assert_eq!((created.pattern, created.user_id), (Pattern::Choreography, None));
    assert!(serde_json::to_value(&created).unwrap().get("userId").is_none());
}

#[test]
fn a_currency_that_is_none_is_refused() {
    for currency in ["eur", "EURO", "E", "€UR", "", "1UR"] {
        let mut written = newest().remove("payment.succeeded").unwrap();
        written["amount"]["currency"] = json!(currency);
        let event = events().into_iter().find(|event| event.event_type == "payment.succeeded").unwrap();
        let error = (event.round_trip)(&written.to_string()).unwrap_err();
        assert!(error.to_string().contains("no ISO 4217 currency code"), "{currency}: {error}");
    }
}

fn add_field(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_field);
            fields.insert("addedLater".to_owned(), json!({"some": ["thing", 1]}));
        }
        Value::Array(values) => values.iter_mut().for_each(add_field),
        _ => {}
    }
}
