//! Asks everybody at once.

use std::time::Duration;

use event_runtime::{
    Record,
    cli::with_causes,
    config::{
        KafkaConfig,
        discovery::{Found, Source},
    },
    consumer::dead_letter::DeadLetter,
    reader::{Position, ReadError, collect},
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use shared_events::{OrderId, header, topics};

use super::evidence::{
    Answer, Evidence, Inspection, KafkaEvidence, OrderState, SeenDeadLetter, SeenEvent, ServiceEvidence,
};
use crate::{dlt, lag};

/// Who is asked.
pub struct Sources {
    pub kafka: KafkaConfig,
    /// Names and addresses; order-service comes first.
    pub services: Vec<(&'static str, Found)>,
    pub payment_gateway: String,
}

/// Asks order-service, every service and Kafka about the order, each for at most `within`.
///
/// # Errors
/// When this machine cannot even ask.
pub async fn gather(sources: &Sources, order: OrderId, within: Duration) -> anyhow::Result<Evidence> {
    let http = reqwest::Client::builder().timeout(within).no_proxy().build()?;
    let orders = sources.services.first().map(|(_, found)| format!("{}/orders/{order}", base(found)));
    let asked_order = ask::<OrderState>(&http, orders.unwrap_or_default());
    let asked_services = join_all(sources.services.iter().map(|(name, found)| {
        let inspection = ask::<Inspection>(&http, format!("{}/inspect/{order}", base(found)));
        async move {
            ServiceEvidence {
                service: (*name).to_owned(),
                address: found.value.clone(),
                address_source: found.source.to_string(),
                embedded: matches!(found.source, Source::LocalStack(_)),
                inspection: inspection.await,
            }
        }
    }));
    let kafka = sources.kafka.clone();
    let asked_kafka = tokio::task::spawn_blocking(move || ask_kafka(&kafka, order, within));
    let (order_state, services, kafka) = futures_util::join!(asked_order, asked_services, asked_kafka);
    Ok(Evidence {
        order_id: order,
        order: order_state,
        services,
        payment_gateway: sources.payment_gateway.clone(),
        kafka: match kafka? {
            Ok(kafka) => Answer::Known(kafka),
            Err(error) => Answer::Silent(with_causes(&error)),
        },
    })
}

fn base(found: &Found) -> &str {
    found.value.trim_end_matches('/')
}

async fn ask<T: DeserializeOwned>(http: &reqwest::Client, url: String) -> Answer<T> {
    let response = match http.get(url).send().await {
        Ok(response) => response,
        Err(error) => return Answer::Silent(innermost(&error)),
    };
    let status = response.status();
    if status == reqwest::StatusCode::NOT_FOUND {
        return Answer::NotFound;
    }
    if !status.is_success() {
        return Answer::Silent(format!("it answers {status}"));
    }
    match response.json().await {
        Ok(answer) => Answer::Known(answer),
        Err(error) => Answer::Silent(format!("its answer cannot be read: {}", innermost(&error))),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn ask_kafka(kafka: &KafkaConfig, order: OrderId, within: Duration) -> Result<KafkaEvidence, ReadError> {
    let key = order.to_string();
    let declared = |name: &str| topics::TOPICS.iter().any(|topic| topic.name == name) || name.ends_with(".dlt");
    let wanted = |record: &Record| record.key.as_deref() == Some(key.as_bytes());
    let collected = collect(kafka, declared, begin(order), within, wanted)?;
    let mut evidence = KafkaEvidence { complete: collected.complete, ..KafkaEvidence::default() };
    for record in &collected.records {
        match record.origin.topic.ends_with(".dlt") {
            true => evidence.dead_letters.push(dead_letter(record)),
            false => evidence.events.push(event(record)),
        }
    }
    let stands = evidence.dead_letters.iter().map(|letter| (letter.topic.clone(), letter.partition));
    let replayed = dlt::replayed(kafka, stands.collect())?;
    for letter in &mut evidence.dead_letters {
        let done = replayed.get(&(letter.topic.clone(), letter.partition));
        letter.replayed = done.is_some_and(|done| done.contains(letter.offset));
    }
    let holds =
        |topic: &str, partition| evidence.events.iter().any(|seen| seen.topic == topic && seen.partition == partition);
    let lag = lag::of_groups(kafka, topics::GROUPS)?;
    evidence.lag = lag.into_iter().filter(|lag| holds(&lag.topic, lag.partition)).collect();
    Ok(evidence)
}

/// Nothing about an order is older than the order, whose id holds the time it was made; clocks may differ a little.
fn begin(order: OrderId) -> Position {
    let made = order.0.get_timestamp().and_then(|time| {
        let (seconds, nanoseconds) = time.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
    });
    made.map_or(Position::Start, |made| Position::At(made - SignedDuration::from_mins(1)))
}

fn event(record: &Record) -> SeenEvent {
    SeenEvent {
        time: record.timestamp,
        event: text(record, header::TYPE).unwrap_or_else(|| "unreadable".to_owned()),
        source: text(record, header::SOURCE).unwrap_or_default(),
        topic: record.origin.topic.to_string(),
        partition: record.origin.partition,
        offset: record.origin.offset,
    }
}

fn dead_letter(record: &Record) -> SeenDeadLetter {
    let letter = DeadLetter::read(record);
    // The topic's name says the group as well: <topic>.<group>.dlt
    let named = record.origin.topic.trim_end_matches(".dlt").split_once('.').map(|(_, group)| group.to_owned());
    SeenDeadLetter {
        time: record.timestamp,
        group: letter.as_ref().map(|letter| letter.group.clone()).or(named).unwrap_or_default(),
        event: text(record, header::TYPE).unwrap_or_else(|| "unreadable".to_owned()),
        topic: record.origin.topic.to_string(),
        partition: record.origin.partition,
        offset: record.origin.offset,
        attempts: letter.as_ref().map_or(0, |letter| letter.attempts),
        error: letter.map_or_else(String::new, |letter| letter.error),
        replayed: false,
    }
}

fn text(record: &Record, name: &str) -> Option<String> {
    record.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}
