//! An order's timeline as lines, each event once, in streaming columns.

use std::{collections::HashSet, io};

use event_runtime::cli::{Output, Paint, one_line};
use jiff::Timestamp;

use super::api::{Entry, Order};

/// Writes the entries of an order's timeline as they become known.
pub struct TimelineWriter<'a> {
    output: &'a Output,
    written: HashSet<String>,
    header: bool,
}

impl<'a> TimelineWriter<'a> {
    pub fn new(output: &'a Output) -> TimelineWriter<'a> {
        TimelineWriter { output, written: HashSet::new(), header: output.is_table() }
    }

    /// Writes what was not written yet. An event whose place in Kafka is not known yet is held back unless `last`: the
    /// relay notes it a moment later.
    pub fn update(&mut self, order: &Order, last: bool) -> io::Result<()> {
        for entry in &order.timeline {
            if (entry.offset.is_some() || last) && self.written.insert(identity(entry)) {
                self.write(entry)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        if !self.output.is_table() {
            return self.output.value(entry);
        }
        if std::mem::take(&mut self.header) {
            let names = ["TIME (UTC)", "SERVICE", "EVENT", "TOPIC[PARTITION]@OFFSET", "TRY", "TRACE ID", "DETAIL"];
            self.output.line(self.output.painted(Some(Paint::Strong), columns(names)))?;
        }
        self.output.line(self.output.painted(paint(&entry.event), line(entry)))
    }
}

/// Whether an ended order has nothing left to come: its mail is sent, stock sold or released, money kept or refunded,
/// and every event has its place in Kafka.
pub fn is_settled(order: &Order) -> bool {
    let has = |event: &str| order.timeline.iter().any(|entry| entry.event == event);
    let stock = !has("stock.reserved") || has("stock.committed") || has("stock.released");
    let money = !has("payment.succeeded") || has("order.completed") || has("payment.refunded");
    has("mail.sent") && stock && money && order.timeline.iter().all(|entry| entry.offset.is_some())
}

/// How an order's state is coloured.
pub fn state_paint(state: &str) -> Option<Paint> {
    Some(match state {
        "completed" => Paint::Good,
        "cancelled" => Paint::Bad,
        _ => Paint::Open,
    })
}

/// What tells one entry from another. A dead letter carries the id of the event it was, once for each group.
fn identity(entry: &Entry) -> String {
    match &entry.event_id {
        Some(id) => format!("{id} {} {}", entry.event, entry.service),
        None => format!("{} {} {}", entry.time, entry.event, entry.service),
    }
}

fn line(entry: &Entry) -> String {
    let place = match (&entry.topic, entry.partition, entry.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("{topic}[{partition}]@{offset}"),
        (Some(topic), ..) => format!("{topic}[-]@-"),
        _ => "-".to_owned(),
    };
    let or_dash = |text: Option<&str>| text.map_or("-".to_owned(), one_line);
    columns([
        &clock_time(entry.time),
        &entry.service,
        &entry.event,
        &place,
        &entry.attempt.map_or("-".to_owned(), |attempt| attempt.to_string()),
        &or_dash(entry.trace_id.as_deref()),
        &one_line(entry.detail.as_deref().unwrap_or_default()),
    ])
}

fn columns(cells: [&str; 7]) -> String {
    let [time, service, event, place, attempt, trace, detail] = cells;
    format!("{time:<12}  {service:<17} {event:<22} {place:<24} {attempt:<3} {trace:<32}  {detail}")
        .trim_end()
        .to_owned()
}

fn paint(event: &str) -> Option<Paint> {
    match event.rsplit_once('.') {
        Some(("order", "completed")) => Some(Paint::Good),
        Some((_, "failed" | "rejected" | "cancelled")) => Some(Paint::Bad),
        _ if event == "dead-letter" => Some(Paint::Bad),
        _ => None,
    }
}

fn clock_time(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: Option<i64>, trace_id: Option<&str>) -> Entry {
        Entry {
            time: "2026-01-31T12:00:00.25Z".parse().unwrap(),
            service: "payment-service".to_owned(),
            event: "payment.failed".to_owned(),
            event_id: None,
            topic: Some("payments".to_owned()),
            partition: offset.map(|_| 3),
            offset,
            attempt: offset.map(|_| 2),
            trace_id: trace_id.map(str::to_owned),
            detail: Some("card\ndeclined".to_owned()),
        }
    }

    fn words(entry: &Entry) -> String {
        line(entry).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_line_has_a_dash_for_what_is_not_known() {
        assert_eq!(
            words(&entry(Some(42), Some("4bf92f"))),
            "12:00:00.250 payment-service payment.failed payments[3]@42 2 4bf92f card·declined"
        );
        assert_eq!(
            words(&entry(None, None)),
            "12:00:00.250 payment-service payment.failed payments[-]@- - - card·declined"
        );
    }
}
