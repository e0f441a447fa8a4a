//! Evidence and verdict on stdout.

use std::io;

use event_runtime::cli::{Output, Paint, one_line};
use jiff::Timestamp;
use serde_json::json;

use super::{
    diagnosis::{Blocker, Verdict},
    evidence::{Answer, Evidence, InFlight, KafkaEvidence, ServiceEvidence},
};

pub fn show(output: &Output, evidence: &Evidence, verdict: &Verdict) -> io::Result<()> {
    if !output.is_table() {
        return output.value(&json!({ "diagnosis": verdict, "evidence": evidence }));
    }
    output.line(format_args!("order     {}", evidence.order_id))?;
    let (paint, state) = match &evidence.order {
        Answer::Known(order) => {
            let reason = order.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
            let paint = match order.state.as_str() {
                "completed" => Paint::Good,
                "cancelled" => Paint::Bad,
                _ => Paint::Open,
            };
            (paint, format!("{}{reason}", order.state))
        }
        Answer::NotFound => (Paint::Bad, "order-service does not know it".to_owned()),
        Answer::Silent(reason) => (Paint::Bad, format!("order-service does not answer: {reason}")),
    };
    output.line(format_args!("state     {}", output.painted(Some(paint), state)))?;
    show_verdict(output, verdict)?;
    if matches!(verdict, Verdict::Unknown(_)) {
        return Ok(());
    }
    output.line("")?;
    show_services(output, &evidence.services)?;
    match &evidence.kafka {
        Answer::Known(kafka) => show_kafka(output, kafka),
        Answer::Silent(reason) => output.line(format_args!("\nKafka does not answer: {reason}")),
        Answer::NotFound => Ok(()),
    }
}

fn show_verdict(output: &Output, verdict: &Verdict) -> io::Result<()> {
    let blocker = |name: &str, blocker: &Blocker| {
        let sentence = output.painted(Some(Paint::Strong), one_line(&blocker.sentence));
        output.line(format_args!("{name:<9} {sentence}"))?;
        output.line(format_args!("next      {}", blocker.next))
    };
    match verdict {
        Verdict::Unknown(reason) => blocker("problem", reason),
        Verdict::Blocked(reason) => blocker("blocker", reason),
        Verdict::Ended { open: None, .. } => output.line("blocker   none; nothing is left to do for it"),
        Verdict::Ended { open: Some(open), .. } => blocker("left", open),
    }
}

fn show_services(output: &Output, services: &[ServiceEvidence]) -> io::Result<()> {
    let mut rows = Vec::new();
    for service in services {
        let name = service.service.clone();
        let dash = || "-".to_owned();
        match &service.inspection {
            Answer::Silent(reason) => {
                let says = format!("does not answer at {}: {reason}", service.address);
                rows.push((Some(Paint::Bad), vec![name, says, dash(), dash(), dash()]));
            }
            Answer::NotFound => {
                let says = "answers, and knows no /inspect".to_owned();
                rows.push((Some(Paint::Bad), vec![name, says, dash(), dash(), dash()]));
            }
            Answer::Known(inspection) => {
                let outbox = match inspection.outbox.oldest_age_seconds {
                    Some(age) => format!("{} rows, oldest {age:.1} s", inspection.outbox.rows),
                    None => format!("{} rows", inspection.outbox.rows),
                };
                if inspection.in_flight.is_empty() {
                    rows.push((None, vec![name, "nothing".to_owned(), dash(), dash(), outbox]));
                    continue;
                }
                for record in &inspection.in_flight {
                    let retry = next_retry(record).unwrap_or_else(dash);
                    let error = record.last_error.clone().unwrap_or_else(dash);
                    let cells = vec![name.clone(), in_hand(record), error, retry, outbox.clone()];
                    rows.push((Some(Paint::Open), cells));
                }
            }
        }
    }
    output.table(&["SERVICE", "IN HAND FOR THE ORDER", "LAST ERROR", "NEXT RETRY", "OUTBOX"], &rows)
}

/// What is away is asked again and again; no time is set for a single record.
fn next_retry(record: &InFlight) -> Option<String> {
    record.next_retry_at.map(clock_time).or_else(|| record.is_probing().then(|| "probing".to_owned()))
}

fn in_hand(record: &InFlight) -> String {
    let InFlight { event, topic, partition, offset, attempt, state, .. } = record;
    format!("{event} {topic}[{partition}]@{offset}, attempt {attempt}, {state}")
}

fn show_kafka(output: &Output, kafka: &KafkaEvidence) -> io::Result<()> {
    output.line("")?;
    let place = |topic: &str, partition: i32, offset: i64| format!("{topic}[{partition}]@{offset}");
    let events: Vec<_> = kafka
        .events
        .iter()
        .map(|seen| {
            let time = seen.time.map_or("-".to_owned(), clock_time);
            (None, vec![time, seen.event.clone(), seen.source.clone(), place(&seen.topic, seen.partition, seen.offset)])
        })
        .collect();
    output.table(&["TIME (UTC)", "EVENT ON KAFKA", "SOURCE", "TOPIC[PARTITION]@OFFSET"], &events)?;
    if !kafka.complete {
        output.note("not all topics could be read in time: --timeout 30s reads more");
    }
    if !kafka.dead_letters.is_empty() {
        output.line("")?;
        let letters: Vec<_> = kafka
            .dead_letters
            .iter()
            .map(|letter| {
                let time = letter.time.map_or("-".to_owned(), clock_time);
                let place = place(&letter.topic, letter.partition, letter.offset);
                let attempts = letter.attempts.to_string();
                let (paint, error) = match letter.replayed {
                    true => (Paint::Dim, format!("replayed since; {}", letter.error)),
                    false => (Paint::Bad, letter.error.clone()),
                };
                let cells = vec![time, letter.group.clone(), letter.event.clone(), place, attempts, error];
                (Some(paint), cells)
            })
            .collect();
        output.table(
            &["TIME (UTC)", "DEAD LETTER OF", "EVENT", "TOPIC[PARTITION]@OFFSET", "ATTEMPTS", "ERROR"],
            &letters,
        )?;
    }
    output.line("")?;
    let lag: Vec<_> = kafka
        .lag
        .iter()
        .map(|lag| {
            let current = lag.current_offset.map_or("-".to_owned(), |offset| offset.to_string());
            let place = format!("{}[{}]", lag.topic, lag.partition);
            let cells = vec![lag.group.clone(), place, current, lag.log_end_offset.to_string(), lag.lag.to_string()];
            ((lag.lag > 0).then_some(Paint::Open), cells)
        })
        .collect();
    output.table(&["GROUP", "TOPIC[PARTITION]", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"], &lag)
}

fn clock_time(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_something_away_is_shown_as_probing() {
        let record = |state: &str, next_retry_at: Option<&str>| InFlight {
            event: "order.created".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            offset: 42,
            attempt: 1,
            state: state.to_owned(),
            last_error: None,
            next_retry_at: next_retry_at.map(|at| at.parse().unwrap()),
        };
        assert_eq!(next_retry(&record("paused", None)).as_deref(), Some("probing"));
        let waiting = record("waiting", Some("2026-01-31T12:00:02.5Z"));
        assert_eq!(next_retry(&waiting).as_deref(), Some("12:00:02.500"));
        assert_eq!(next_retry(&record("running", None)), None);
    }
}
