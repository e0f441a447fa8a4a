//! The outbox and its relay: what commits is published, in order.

use std::time::Duration;

use event_runtime::{Clock, Database, Outbox, config::KafkaConfig, outbox::Relay, producer::Producer};
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
};
use shared_events::{CorrelationId, Event, OrderDeadlineReached, OrderId};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_event_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
    database.migrate(&[]).await.unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("order-deadlines", 1, 1).unwrap();
    let kafka = KafkaConfig { brokers: cluster.bootstrap_servers(), settings: vec![] };
    let relay = Relay::new(database.clone(), Producer::new(&kafka).unwrap(), "test", None, Clock::system());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(relay.run(shutdown.clone()));

    let event = OrderDeadlineReached { order_id: OrderId::new() };
    let tx = database.begin().await.unwrap();
    let mut outbox = Outbox::root("test", CorrelationId::new(), Clock::system().now());
    let id = outbox.publish(&event).unwrap();
    database.commit(tx, outbox).await.unwrap();

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &kafka.brokers).set("group.id", "t").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("order-deadlines", 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let message = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
    assert_eq!(message.key().unwrap(), event.key().as_bytes());
    println!("{id}");
    shutdown.cancel();
    running.await.unwrap();
}
