//! The whole service between an embedded broker, its database and a mail server.

use std::{net::SocketAddr, time::Duration};

use email_service::Config;
use event_runtime::config::ServiceConfig;
use shared_events::{MailSent, OrderCancelled, OrderCompleted, topics::dead_letter_topic};
use test_support::{
    MockKafka, RunningService, SmtpSink, TempDatabase, eventually,
    records::{publish, publish_as, read_events, read_until, type_of},
    smtp::Answer,
};

use crate::{cancelled, completed};

const PATIENCE: Duration = Duration::from_secs(30);

async fn service(kafka: &MockKafka, place: &TempDatabase, smtp_url: &str) -> RunningService {
    let config = ServiceConfig::new(kafka.config(), place.url()).listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    RunningService::ready(email_service::bind(Config::smtp(config, smtp_url)).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_comes_twice_is_one_mail() {
    let (kafka, place, sink) = (MockKafka::start(1), TempDatabase::any().await, SmtpSink::start().await);
    let service = service(&kafka, &place, &sink.url()).await;
    let event = completed("ann@example.com");
    let envelope = publish(&kafka.config(), &event).await;
    publish_as(&kafka.config(), &event, &envelope).await;
    // The same key, so the same lane: its mail goes out after both.
    let last = OrderCancelled { order_id: event.order_id, ..cancelled("ann@example.com") };
    publish(&kafka.config(), &last).await;
    let sent = read_events::<MailSent>(&kafka.config(), 2, PATIENCE).await;
    assert_eq!(
        sent.iter().map(|(_, sent)| sent.about.as_str()).collect::<Vec<_>>(),
        ["order.completed", "order.cancelled"]
    );
    assert_eq!((sent[0].0.causation_id, sent[0].0.correlation_id), (Some(envelope.id), envelope.correlation_id));
    assert_eq!(sink.copies().into_values().collect::<Vec<_>>(), [1, 1]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_wait_for_a_server_that_is_away_and_each_goes_out_once() {
    let (kafka, place, sink) = (MockKafka::start(1), TempDatabase::any().await, SmtpSink::start().await);
    let (url, address) = (sink.url(), sink.stop().await);
    let service = service(&kafka, &place, &url).await;
    for number in 0..30 {
        publish(&kafka.config(), &completed(&format!("customer{number}@example.com"))).await;
    }
    eventually(PATIENCE, "mail under way", async || match service.get("/mails").await["mails"].as_array() {
        Some(mails) if !mails.is_empty() => Ok(()),
        mails => Err(format!("{mails:?}")),
    })
    .await;
    let sink = SmtpSink::start_at(address).await.unwrap();
    let sent = read_events::<MailSent>(&kafka.config(), 30, PATIENCE).await;
    assert_eq!(sent.len(), 30);
    assert_eq!(sink.copies().into_values().collect::<Vec<_>>(), [1; 30]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_refused_is_a_dead_letter_while_others_get_their_mail() {
    let (kafka, place, sink) = (MockKafka::start(1), TempDatabase::any().await, SmtpSink::start().await);
    sink.answer_to("gone@example.com", Answer::Never);
    let service = service(&kafka, &place, &sink.url()).await;
    let gone = completed("gone@example.com");
    publish(&kafka.config(), &gone).await;
    publish(&kafka.config(), &completed("ann@example.com")).await;
    let sent = read_events::<MailSent>(&kafka.config(), 1, PATIENCE).await;
    assert_eq!(sent.len(), 1);
    let topic = dead_letter_topic("orders", "email-service");
    let dead = read_until(&kafka.config(), &topic, PATIENCE, |records| !records.is_empty()).await;
    assert_eq!(test_support::records::decode::<OrderCompleted>(&dead[0]).1, gone);
    assert_eq!(type_of(&dead[0]), "order.completed");
    let path = format!("/mails?order={}", gone.order_id);
    eventually(PATIENCE, "failed mail", async || match &service.get(&path).await["mails"][0]["state"] {
        state if state == "failed" => Ok(()),
        state => Err(state.clone()),
    })
    .await;
    service.stop().await;
}
