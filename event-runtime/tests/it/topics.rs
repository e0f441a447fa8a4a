//! Topics are there before anybody needs them.

use std::time::Duration;

use event_runtime::{
    config::KafkaConfig,
    topics::{TopicError, TopicSpec, ensure},
};
use shared_events::{EventId, topics};

use crate::stage::{TOPIC, TestKafka};

fn missing() -> TopicSpec {
    TopicSpec { name: format!("storage-tests-{}", EventId::new()), partitions: 3, retention: Duration::from_secs(3600) }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_exist_are_left_alone() {
    let kafka = TestKafka::start().await;
    assert_eq!(ensure(&kafka.config(), &[TopicSpec::from(TOPIC)]).await.unwrap(), Vec::<String>::new());
}

/// The embedded broker cannot create topics by the protocol; a real one does, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_created_or_named() {
    let kafka = TestKafka::start().await;
    let wanted = [TopicSpec::from(TOPIC), missing()];
    match (&kafka, ensure(&kafka.config(), &wanted).await) {
        (TestKafka::Embedded(_), Err(TopicError::NotInTime { topic, .. } | TopicError::Refused { topic, .. })) => {
            assert_eq!(topic, wanted[1].name)
        }
        (TestKafka::Real(_), Ok(created)) => {
            assert_eq!(created, [wanted[1].name.clone()]);
            let instances = [ensure(&kafka.config(), &wanted).await, ensure(&kafka.config(), &wanted).await];
            assert!(instances.iter().all(|created| created.as_ref().is_ok_and(Vec::is_empty)), "{instances:?}");
        }
        (_, other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_named() {
    let kafka = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), settings: Vec::new() };
    let error = ensure(&kafka, &[missing()]).await.unwrap_err();
    assert!(matches!(error, TopicError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn every_topic_of_a_group_has_its_dead_letters_which_are_kept_longer() {
    let group = topics::PAYMENT_SERVICE;
    let dead_letters: Vec<TopicSpec> = TopicSpec::dead_letters_of(&group).collect();
    assert_eq!(dead_letters.len(), group.topics.len());
    assert_eq!(dead_letters[0].name, "orders.payment-service.dlt");
    assert!(dead_letters[0].retention > group.topics[0].retention);
    assert_eq!(dead_letters[0].partitions, group.topics[0].partitions);
}
