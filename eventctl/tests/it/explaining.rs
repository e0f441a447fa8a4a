//! `explain`: evidence from stubs of the services and from an embedded broker.

use serde_json::{Value, json};
use shared_events::{MailSent, OrderDeadlineReached, OrderId, header, topics::dead_letter_topic};
use test_support::{
    MockKafka,
    records::{publish, publish_raw},
};

use crate::{
    Ran, eventctl,
    lagging::commit,
    services::{desk, idle, service},
    words,
};

/// The addresses of the four services, in the order of the flags.
struct Stack {
    kafka: MockKafka,
    services: [String; 4],
    order: OrderId,
}

impl Stack {
    async fn with(state: &str, payment: String) -> Stack {
        let order = json!({"state": state, "reason": null, "createdAt": "2026-01-31T12:00:00Z"});
        let services = [service(Some(order), desk(&[])).await, payment, idle().await, idle().await];
        Stack { kafka: MockKafka::start(1), services, order: OrderId::new() }
    }

    async fn created(&self) -> event_runtime::Origin {
        let headers: [(&str, &[u8]); 2] = [(header::TYPE, b"order.created"), (header::SOURCE, b"order-service")];
        publish_raw(&self.kafka.config(), "orders", &self.order.to_string(), &headers, b"{}").await
    }

    async fn explain(&self, more: &[&str]) -> Ran {
        let flags = ["--order-service", "--payment-service", "--inventory-service", "--email-service"];
        let (order, brokers) = (self.order.to_string(), self.kafka.addresses());
        let mut arguments = vec!["explain", &order, "-b", &brokers];
        for (flag, url) in flags.iter().zip(&self.services) {
            arguments.extend([*flag, url.as_str()]);
        }
        arguments.extend(more);
        eventctl(&arguments).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_attempt_is_named_with_its_error_and_next_retry() {
    let failing = json!({
        "group": "payment-service", "event": "order.created", "eventId": "e", "topic": "orders", "partition": 3,
        "offset": 42, "attempt": 3, "state": "waiting", "lastError": "the gateway said 500",
        "nextRetryAt": "2099-01-31T12:00:00Z",
    });
    let stack = Stack::with("pending", service(None, desk(&[failing])).await).await;
    let origin = stack.created().await;
    let ran = stack.explain(&[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = words(&ran.stdout);
    assert_eq!(lines[1], "state pending");
    assert!(
        lines[2].starts_with("blocker payment-service failed at order.created 2 times and tries again in "),
        "{lines:?}"
    );
    assert!(lines[2].ends_with("the gateway said 500"), "{lines:?}");
    assert!(lines[3].starts_with("next docker compose logs --tail 200 payment-service | grep "), "{lines:?}");
    let shown = lines.join("\n");
    assert!(shown.contains("order.created orders[3]@42, attempt 3, waiting the gateway said 500"), "{shown}");
    assert!(shown.contains(&format!("order.created order-service {origin}")), "{shown}");
    assert!(shown.contains(&format!("payment-service orders[{}] - 1 1", origin.partition)), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_by_the_orders_key() {
    let stack = Stack::with("pending", idle().await).await;
    let origin = stack.created().await;
    commit(&stack.kafka.config(), "payment-service", "orders", origin.partition, 1);
    let topic = dead_letter_topic("orders", "payment-service");
    let (partition, offset) = (origin.partition.to_be_bytes(), origin.offset.to_be_bytes());
    let headers: [(&str, &[u8]); 7] = [
        (header::TYPE, b"order.created"),
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", &partition),
        ("kafka_dlt-original-offset", &offset),
        ("kafka_dlt-original-consumer-group", b"payment-service"),
        ("kafka_dlt-exception-message", b"no such currency"),
        ("dlt-attempts", b"4"),
    ];
    for key in [stack.order.to_string(), OrderId::new().to_string()] {
        publish_raw(&stack.kafka.config(), &topic, &key, &headers, b"{}").await;
    }
    let ran = stack.explain(&["-o", "json"]).await;
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let sentence = &document["diagnosis"]["sentence"];
    assert_eq!(sentence, "payment-service gave up order.created after 4 attempts: no such currency", "{ran:?}");
    let next = document["diagnosis"]["next"].as_str().unwrap();
    let letters = document["evidence"]["kafka"]["known"]["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "other orders' letters are theirs: {letters:?}");
    let (partition, offset) = (&letters[0]["partition"], &letters[0]["offset"]);
    assert_eq!(next, format!("eventctl dlt show {topic}:{partition}:{offset}"));

    let key = stack.order.to_string();
    let brokers = stack.kafka.addresses();
    let ran = eventctl(&["dlt", "replay", "--key", &key, "--execute", "-b", &brokers]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = stack.explain(&[]).await;
    assert!(!ran.stdout.contains("gave up") && ran.stdout.contains("replayed since; no such currency"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_the_blocker() {
    let stack = Stack::with("pending", "http://127.0.0.1:9".to_owned()).await;
    stack.created().await;
    let ran = stack.explain(&[]).await;
    let blocker = &words(&ran.stdout)[2];
    assert!(blocker.starts_with("blocker payment-service does not answer at http://127.0.0.1:9"), "{ran:?}");
    assert!(ran.stdout.contains("refused"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_has_ended_is_blocked_by_nobody() {
    let stack = Stack::with("completed", idle().await).await;
    let config = stack.kafka.config();
    let origin = stack.created().await;
    for group in ["payment-service", "inventory-service", "email-service"] {
        commit(&config, group, "orders", origin.partition, origin.offset + 1);
    }
    let ran = stack.explain(&[]).await;
    let lines = words(&ran.stdout);
    assert_eq!(
        (ran.code, &lines[1], &lines[2]),
        (0, &"state completed".into(), &"blocker none; nothing is left to do for it".into())
    );

    // What order-service has not read yet is left to do, whatever it is.
    publish(&config, &MailSent { order_id: stack.order, about: "x".to_owned(), message_id: "m".to_owned() }).await;
    publish(&config, &OrderDeadlineReached { order_id: stack.order }).await;
    let ran = stack.explain(&[]).await;
    assert!(words(&ran.stdout)[2].starts_with("left order-service has not come to mail.sent at mails["), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_nobody_knows_ends_with_1() {
    let mut stack = Stack::with("pending", idle().await).await;
    stack.services[0] = idle().await;
    let ran = stack.explain(&[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("nobody knows the order"), "{ran:?}");
    let ran = eventctl(&["explain", "42"]).await;
    assert_eq!(ran.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_away_explain_still_answers() {
    let order = OrderId::new().to_string();
    let nowhere = "http://127.0.0.1:9";
    let mut arguments = vec!["explain", &order, "-b", "127.0.0.1:9", "--timeout", "500ms"];
    for flag in ["--order-service", "--payment-service", "--inventory-service", "--email-service"] {
        arguments.extend([flag, nowhere]);
    }
    let ran = eventctl(&arguments).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("blocker   order-service does not answer at http://127.0.0.1:9"), "{ran:?}");
    assert!(ran.stdout.contains("Kafka does not answer"), "{ran:?}");
}
