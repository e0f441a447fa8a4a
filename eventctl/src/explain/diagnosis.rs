//! From evidence to the one thing that holds the order up, and the command to type next. Pure: no I/O, no clock.
//!
//! An order passes order-service (`order.created`), then payment and inventory side by side, then order-service again
//! (`order.completed` or `order.cancelled`), then email. Whoever owes the next event is looked at; of everything that is
//! wrong with them, the gravest is named.

use jiff::Timestamp;
use serde::Serialize;

use super::evidence::{Answer, Evidence, InFlight, ServiceEvidence};

const ORDER: &str = "order-service";
const PAYMENT: &str = "payment-service";
const INVENTORY: &str = "inventory-service";
const EMAIL: &str = "email-service";

/// An outbox is emptied within milliseconds; rows older than this are stuck.
const OUTBOX_IS_LATE_AFTER: f64 = 2.0;

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// Nobody knows the order.
    Unknown(Blocker),
    /// It has ended. Somebody may still have something to do for it.
    Ended { sentence: String, open: Option<Blocker> },
    /// It has not ended, because of this.
    Blocked(Blocker),
}

/// Who holds the order up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    pub who: String,
    /// One sentence.
    pub sentence: String,
    /// The command to type next.
    pub next: String,
}

/// Judges the evidence as of `now`.
pub fn diagnose(evidence: &Evidence, now: Timestamp) -> Verdict {
    let id = evidence.order_id;
    match &evidence.order {
        Answer::NotFound => unknown(evidence),
        Answer::Silent(reason) => Verdict::Blocked(silent(evidence, ORDER, reason)),
        Answer::Known(order) if order.state != "pending" => {
            let reason = order.reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
            let open = [PAYMENT, INVENTORY, EMAIL, ORDER].into_iter().filter_map(|who| leftover(evidence, who, now));
            Verdict::Ended {
                sentence: format!("the order has ended: {}{reason}", order.state),
                open: open.min_by_key(|(gravity, _)| *gravity).map(|(_, blocker)| blocker),
            }
        }
        Answer::Known(order) => Verdict::Blocked(match &evidence.kafka {
            Answer::Known(_) => until_the_deadline(blocker(evidence, now), order.expires_at, now),
            Answer::Silent(reason) => Blocker {
                who: "Kafka".to_owned(),
                sentence: format!("Kafka does not answer, and nothing moves without it: {reason}"),
                next: is_it_up(evidence, "kafka"),
            },
            Answer::NotFound => moving(ORDER, format!("eventctl explain {id}")),
        }),
    }
}

/// Says when order-service stops waiting for the services that answer side by side.
fn until_the_deadline(mut blocker: Blocker, expires_at: Option<Timestamp>, now: Timestamp) -> Blocker {
    if let (PAYMENT | INVENTORY, Some(at)) = (blocker.who.as_str(), expires_at) {
        blocker.sentence += &match at > now {
            true => {
                format!("; its deadline cancels the order at {} UTC, {}", at.strftime("%H:%M:%S"), in_words(now, at))
            }
            false => "; its deadline has passed, and cancels the order any moment".to_owned(),
        };
    }
    blocker
}

fn unknown(evidence: &Evidence) -> Verdict {
    let on_kafka = evidence.kafka().is_some_and(|kafka| !kafka.events.is_empty());
    let id = evidence.order_id;
    Verdict::Unknown(match on_kafka {
        true => Blocker {
            who: ORDER.to_owned(),
            sentence: format!(
                "order-service does not know {id}, though its events are on Kafka: it uses another database"
            ),
            next: "order-service list".to_owned(),
        },
        false => Blocker {
            who: ORDER.to_owned(),
            sentence: format!("nobody knows the order {id}"),
            next: "order-service list".to_owned(),
        },
    })
}

/// Who holds a pending order up.
fn blocker(evidence: &Evidence, now: Timestamp) -> Blocker {
    let said = |events: &[&str]| evidence.kafka().is_some_and(|kafka| kafka.has(events));
    let read_all = evidence.kafka().is_some_and(|kafka| kafka.complete);
    if !said(&["order.created"]) && read_all {
        return trouble(evidence, ORDER, now).map(|(_, blocker)| blocker).unwrap_or_else(|| Blocker {
            who: ORDER.to_owned(),
            sentence: "order.created is not on Kafka yet: order-service's relay has not published it".to_owned(),
            next: logs(evidence, ORDER),
        });
    }
    let paid = said(&["payment.succeeded", "payment.failed"]);
    let reserved = said(&["stock.reserved", "stock.rejected"]);
    let owing = [(PAYMENT, paid), (INVENTORY, reserved)].into_iter().filter(|(_, answered)| !answered);
    let owing: Vec<&str> = owing.map(|(who, _)| who).collect();
    // Both answers are there, or one that cancels: the saga has the next word.
    let decided = owing.is_empty() || said(&["payment.failed", "stock.rejected", "order.deadline-reached"]);
    let suspects = if decided { vec![ORDER] } else { owing };
    let found = suspects.iter().filter_map(|who| trouble(evidence, who, now)).min_by_key(|(gravity, _)| *gravity);
    let all_is_well = || Blocker {
        who: suspects[0].to_owned(),
        sentence: format!("{} has nothing in hand for the order, and has not said what came of it", suspects[0]),
        next: logs_of_order(evidence, suspects[0]),
    };
    found.map(|(_, blocker)| blocker).unwrap_or_else(all_is_well)
}

/// How much a finding explains: the first is the gravest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    GaveUp,
    Silent,
    Paused,
    Failing,
    OutboxStuck,
    Running,
    Queued,
    Behind,
}

/// The gravest thing that is wrong with `who`, as far as the order is concerned.
fn trouble(evidence: &Evidence, who: &str, now: Timestamp) -> Option<(Gravity, Blocker)> {
    let service = evidence.service(who)?;
    let found = gave_up(evidence, who).into_iter();
    let found = found.chain(no_answer(evidence, service)).chain(in_flight(evidence, service, now));
    found.chain(outbox(evidence, service)).chain(behind(evidence, who)).min_by_key(|(gravity, _)| *gravity)
}

/// As [`trouble`], for an order that has ended: somebody silent or busy with others owes it nothing that shows.
fn leftover(evidence: &Evidence, who: &str, now: Timestamp) -> Option<(Gravity, Blocker)> {
    let service = evidence.service(who)?;
    let found = gave_up(evidence, who).into_iter().chain(in_flight(evidence, service, now));
    found.chain(behind(evidence, who)).min_by_key(|(gravity, _)| *gravity)
}

fn gave_up(evidence: &Evidence, who: &str) -> Option<(Gravity, Blocker)> {
    let letter = evidence.kafka()?.dead_letters.iter().rev().find(|letter| letter.group == who && !letter.replayed)?;
    let attempts = match letter.attempts {
        0 => String::new(),
        1 => " after 1 attempt".to_owned(),
        many => format!(" after {many} attempts"),
    };
    let sentence = format!("{who} gave up {}{attempts}: {}", letter.event, or_unsaid(&letter.error));
    let next = format!("eventctl dlt show {}:{}:{}", letter.topic, letter.partition, letter.offset);
    Some((Gravity::GaveUp, Blocker { who: who.to_owned(), sentence, next }))
}

fn no_answer(evidence: &Evidence, service: &ServiceEvidence) -> Option<(Gravity, Blocker)> {
    match &service.inspection {
        Answer::Silent(reason) => Some((Gravity::Silent, silent(evidence, &service.service, reason))),
        Answer::Known(_) | Answer::NotFound => None,
    }
}

fn silent(evidence: &Evidence, who: &str, reason: &str) -> Blocker {
    let at = evidence
        .service(who)
        .map_or(String::new(), |service| format!(" at {} ({})", service.address, service.address_source));
    Blocker {
        who: who.to_owned(),
        sentence: format!("{who} does not answer{at}: {reason}"),
        next: is_it_up(evidence, who),
    }
}

fn in_flight(evidence: &Evidence, service: &ServiceEvidence, now: Timestamp) -> Option<(Gravity, Blocker)> {
    let Answer::Known(inspection) = &service.inspection else { return None };
    let who = &service.service;
    let findings = inspection.in_flight.iter().map(|record| {
        let InFlight { event, attempt, last_error, .. } = record;
        let error = or_unsaid(last_error.as_deref().unwrap_or_default());
        let (gravity, sentence, next) = match record.state.as_str() {
            "paused" => (
                Gravity::Paused,
                format!("{who} waits with {event} for something it needs that is away: {error}"),
                what_is_away(evidence, service, error),
            ),
            "waiting" => {
                let when = record.next_retry_at.map_or(String::new(), |at| format!(" {}", in_words(now, at)));
                let failed = attempt.saturating_sub(1).max(1);
                (
                    Gravity::Failing,
                    format!("{who} failed at {event} {failed} times and tries again{when}: {error}"),
                    logs_of_order(evidence, who),
                )
            }
            "queued" => {
                (Gravity::Queued, format!("{event} waits for its turn in {who}"), format!("eventctl lag --group {who}"))
            }
            _ => (
                Gravity::Running,
                format!("{who} is at work on {event}, attempt {attempt}"),
                format!("order-service status {} --watch", evidence.order_id),
            ),
        };
        (gravity, Blocker { who: who.clone(), sentence, next })
    });
    findings.min_by_key(|(gravity, _)| *gravity)
}

fn outbox(evidence: &Evidence, service: &ServiceEvidence) -> Option<(Gravity, Blocker)> {
    let Answer::Known(inspection) = &service.inspection else { return None };
    let age = inspection.outbox.oldest_age_seconds.filter(|age| *age > OUTBOX_IS_LATE_AFTER)?;
    let who = &service.service;
    let sentence = format!(
        "{who} has not published what it decided: {} events wait in its outbox, the oldest for {age:.0} s",
        inspection.outbox.rows
    );
    Some((Gravity::OutboxStuck, Blocker { who: who.clone(), sentence, next: logs(evidence, who) }))
}

/// A record of the order that the group has not come to.
fn behind(evidence: &Evidence, who: &str) -> Option<(Gravity, Blocker)> {
    let kafka = evidence.kafka()?;
    kafka.events.iter().find_map(|seen| {
        let lag = kafka
            .lag
            .iter()
            .find(|lag| lag.group == who && lag.topic == seen.topic && lag.partition == seen.partition)?;
        let ahead = match lag.current_offset {
            Some(current) if current > seen.offset => return None,
            Some(current) => format!("{} records before it are not done", seen.offset - current),
            None => "the group has not committed anything yet".to_owned(),
        };
        let sentence = format!(
            "{who} has not come to {} at {}[{}]@{}: {ahead}",
            seen.event, seen.topic, seen.partition, seen.offset
        );
        let next = format!("eventctl lag --group {who}");
        Some((Gravity::Behind, Blocker { who: who.to_owned(), sentence, next }))
    })
}

fn moving(who: &str, next: String) -> Blocker {
    Blocker { who: who.to_owned(), sentence: "nothing is known to be wrong".to_owned(), next }
}

/// Its log where it has one of its own; `cargo run` prints all of them in its terminal.
fn logs(evidence: &Evidence, who: &str) -> String {
    match evidence.service(who) {
        Some(service) if service.embedded => format!("curl -s {}/inspect/{}", service.address, evidence.order_id),
        _ => format!("docker compose logs --tail 200 {who}"),
    }
}

fn logs_of_order(evidence: &Evidence, who: &str) -> String {
    match evidence.service(who) {
        Some(service) if service.embedded => logs(evidence, who),
        _ => format!("{} | grep {}", logs(evidence, who), evidence.order_id),
    }
}

/// What a service needs runs beside it, and it goes on by itself once that is back.
fn what_is_away(evidence: &Evidence, service: &ServiceEvidence, error: &str) -> String {
    if service.service == PAYMENT && error.contains("gateway") {
        let at = evidence.payment_gateway.trim_end_matches('/');
        return format!("curl -i {at}/health  # does the gateway answer? {PAYMENT} asks at its PAYMENT_GATEWAY_URL");
    }
    match service.embedded {
        true => format!("order-service status {} --watch", evidence.order_id),
        false => "docker compose ps --all".to_owned(),
    }
}

/// Whether it runs at all.
fn is_it_up(evidence: &Evidence, who: &str) -> String {
    match evidence.services.iter().any(|service| service.embedded) {
        true => "cargo run".to_owned(),
        false => format!("docker compose ps {who}"),
    }
}

fn or_unsaid(error: &str) -> &str {
    if error.is_empty() { "no reason is given" } else { error }
}

fn in_words(now: Timestamp, at: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs_f64();
    if seconds <= 0.0 { "now".to_owned() } else { format!("in {seconds:.1} s") }
}

#[cfg(test)]
mod tests;
