use std::time::Duration;

use jiff::Timestamp;
use shared_events::{Envelope, OrderDeadlineReached, OrderId};
use test_support::{
    MockKafka,
    records::{self, publish, publish_as, publish_raw, read_events, read_until},
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_published_can_be_read_back_with_its_envelope() {
    let kafka = MockKafka::start(1);
    let event = OrderDeadlineReached { order_id: OrderId::new() };
    let envelope = publish(&kafka.config(), &event).await;
    assert_eq!(read_events::<OrderDeadlineReached>(&kafka.config(), 1, PATIENCE).await, [(envelope, event)]);
}

#[tokio::test]
async fn a_duplicate_has_the_same_id_and_another_offset() {
    let kafka = MockKafka::start(2);
    let event = OrderDeadlineReached { order_id: OrderId::new() };
    let envelope = Envelope::new(&event, "test", Timestamp::now());
    let first = publish_as(&kafka.config(), &event, &envelope).await;
    let second = publish_as(&kafka.config(), &event, &envelope).await;
    assert_eq!((first.partition, first.offset + 1), (second.partition, second.offset));
    let read = read_events::<OrderDeadlineReached>(&kafka.config(), 2, PATIENCE).await;
    assert!(read.iter().all(|(read, _)| read.id == envelope.id));
}

#[tokio::test]
async fn any_bytes_can_be_published_to_a_dead_letter_topic() {
    let kafka = MockKafka::start(1);
    let topic = "orders.email-service.dlt";
    publish_raw(&kafka.config(), topic, "key", &[("x", b"\xff")], b"\x00").await;
    let read = read_until(&kafka.config(), topic, PATIENCE, |records| !records.is_empty()).await;
    assert_eq!((read[0].header("x"), read[0].value.as_deref()), (Some(&b"\xff"[..]), Some(&b"\x00"[..])));
    assert_eq!(records::type_of(&read[0]), "");
}
