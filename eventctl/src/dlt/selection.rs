//! Which dead letters are meant.

use event_runtime::{
    Record,
    consumer::dead_letter::{DeadLetter, header_text},
    reader::Position,
};
use jiff::Timestamp;
use shared_events::header;

use super::letters::TopicArgs;

/// What a dead letter must be like. All conditions given have to hold; one at least is given.
#[derive(Clone, Debug, Default, clap::Args)]
// By name: the members of flattened arguments would not count.
#[group(
    required = true,
    multiple = true,
    args = ["topic", "group", "ids", "key", "error_class", "since", "until", "headers", "all"],
)]
pub struct Selection {
    #[command(flatten)]
    pub topics: TopicArgs,

    /// The event with this id, repeatable
    #[arg(long = "id", value_name = "EVENT_ID")]
    pub ids: Vec<String>,

    /// Records with this key, such as an order's id
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Failures of this class: retries-exhausted, rejected or unavailable
    #[arg(long, value_name = "CLASS")]
    pub error_class: Option<String>,

    /// What failed at this moment or later: @-2h, @2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub since: Option<Position>,

    /// What failed before this moment: @-10m, @2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub until: Option<Position>,

    /// Records with this header, as `dlt show` shows it; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub headers: Vec<(String, String)>,

    /// All of them
    #[arg(long)]
    pub all: bool,
}

impl Selection {
    /// Whether a record is meant; its topic and group are judged elsewhere.
    pub fn fits(&self, record: &Record, dead: &DeadLetter, now: Timestamp) -> bool {
        let has = |name: &str, wanted: &str| {
            let mut headers = record.headers.iter().filter(|(known, _)| known == name);
            headers.any(|(_, value)| value.as_deref().is_some_and(|value| header_text(name, value) == wanted))
        };
        let failed = dead.failed_at.or(record.timestamp);
        let since = self.since.and_then(|since| since.since(now));
        let until = self.until.and_then(|until| until.since(now));
        (self.ids.is_empty() || self.ids.iter().any(|id| has(header::ID, id)))
            && self.key.as_deref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()))
            && self.error_class.as_deref().is_none_or(|class| class == dead.error_class)
            && since.is_none_or(|since| failed.is_some_and(|failed| failed >= since))
            && until.is_none_or(|until| failed.is_some_and(|failed| failed < until))
            && self.headers.iter().all(|(name, value)| has(name, value))
    }
}

fn moment(text: &str) -> Result<Position, String> {
    match text.parse::<Position>() {
        Ok(position @ (Position::Ago(_) | Position::At(_))) => Ok(position),
        _ => Err("write a moment as @2026-01-31T12:00:00Z, or @-10m for ten minutes ago".to_owned()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use event_runtime::Origin;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn letter() -> (Record, DeadLetter) {
        let header = |name: &'static str, value: &[u8]| (name.into(), Some(value.to_vec()));
        let record = Record {
            origin: Origin { topic: "orders.payment-service.dlt".into(), partition: 0, offset: 7 },
            timestamp: None,
            key: Some(b"k1".to_vec()),
            value: None,
            headers: vec![
                header("ce_id", b"e1"),
                header("ce_type", b"order.created"),
                header("kafka_dlt-original-topic", b"orders"),
                header("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
                header("kafka_dlt-original-offset", &42_i64.to_be_bytes()),
                header("kafka_dlt-original-consumer-group", b"payment-service"),
                header("kafka_dlt-exception-fqcn", b"rejected"),
                header("dlt-failed-at", b"2026-01-31T12:00:00Z"),
            ],
        };
        let dead = DeadLetter::read(&record).unwrap();
        (record, dead)
    }

    #[test]
    fn every_condition_that_is_given_has_to_hold() {
        let (record, dead) = letter();
        let now: Timestamp = "2026-01-31T13:00:00Z".parse().unwrap();
        let table: [(&[&str], bool); 17] = [
            (&["--all"], true),
            (&["--id", "e1"], true),
            (&["--id", "e2"], false),
            (&["--id", "e2", "--id", "e1"], true),
            (&["--key", "k1"], true),
            (&["--key", "k"], false),
            (&["--error-class", "rejected"], true),
            (&["--error-class", "unavailable"], false),
            (&["--since", "@-1h"], true),
            (&["--since", "@-59m"], false),
            (&["--until", "@-1h"], false),
            (&["--until", "@2026-01-31T12:00:01Z"], true),
            (&["--header", "ce_type=order.created"], true),
            (&["--header", "kafka_dlt-original-partition=3"], true),
            (&["--header", "ce_type=order.created", "--header", "ce_type=x"], false),
            (&["--all", "--key", "other"], false),
            (&["--key", "k1", "--since", "@-59m"], false),
        ];
        for (arguments, fits) in table {
            let line = Line::try_parse_from([&["x"], arguments].concat()).unwrap();
            assert_eq!(line.selection.fits(&record, &dead, now), fits, "{arguments:?}");
        }
    }

    #[test]
    fn a_selection_that_says_nothing_is_refused() {
        Line::command().debug_assert();
        assert!(Line::try_parse_from(["x"]).is_err());
        for wrong in [["--since", "yesterday"], ["--since", "end"], ["--header", "ce_type"]] {
            assert!(Line::try_parse_from([&["x"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
        Line::try_parse_from(["x", "--group", "payment-service"]).unwrap();
    }
}
