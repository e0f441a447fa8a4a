//! What a consumer says about how far it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use event_runtime::{
    ConsumerBuilder, HandlerError, RawHandler, Record,
    config::KafkaConfig,
    consumer::NotReady,
    topics::{self, TopicSpec},
};
use jiff::{SignedDuration, Timestamp};
use rdkafka::{
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use test_support::eventually;

use super::scene::{GROUP, PATIENCE, Scene, TOPIC};

const LAG: &str = "consumer_lag_records";
const LAG_SECONDS: &str = "consumer_lag_seconds";
const AGE: &str = "consumer_oldest_unhandled_seconds";

async fn lag(scene: &Scene, wanted: f64) {
    lag_of(scene, 2, wanted).await;
}

async fn lag_of(scene: &Scene, partitions: usize, wanted: f64) {
    eventually(PATIENCE, "lag", async || match (scene.series(LAG).len(), scene.metric(LAG)) {
        (owned, lag) if owned == partitions && lag == wanted => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_and_age_are_those_of_the_owned_partitions_also_after_a_rebalance() {
    let scene = Scene::with_partitions(2).await;
    for number in 0..2 {
        scene.publish_to(0, "a", &format!("slow 4000 {number}")).await;
    }
    scene.publish_to(1, "b", "soon").await;
    let first = scene.start(scene.plain());
    lag(&scene, 2.0).await;
    eventually(PATIENCE, "age", async || match scene.metric(AGE) {
        age if age > 1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(scene.metric(LAG_SECONDS) > 1.0, "the first record in hand");
    lag(&scene, 0.0).await;
    assert_eq!((scene.metric(AGE), scene.metric(LAG_SECONDS)), (0.0, 0.0), "nothing is in hand and nothing waits");

    let second = scene.start_apart(scene.plain());
    eventually(PATIENCE, "one partition each", async || {
        let shown = [LAG, LAG_SECONDS, AGE].map(|name| scene.series(name).len());
        if second.ready().is_ok() && shown == [1; 3] { Ok(()) } else { Err(shown) }
    })
    .await;
    second.shutdown(Duration::from_secs(5)).await.unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    for name in [LAG, LAG_SECONDS, AGE] {
        assert_eq!(scene.series(name), [""; 0], "a consumer that has stopped owns nothing");
    }

    // What comes while nobody reads is the lag of whoever reads next, who has handled nothing yet.
    scene.publish_to(1, "b", "slow 5000").await;
    let next = scene.start(scene.plain());
    lag(&scene, 1.0).await;
    next.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// The embedded broker answers a fetch that found nothing when this is over, and not when a record comes: for so long a
/// client that has read everything is blind. The last one counts.
const BLIND: &str = "fetch.wait.max.ms=55000";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_read_has_waited_since_it_was_written() {
    let mut scene = Scene::embedded().await;
    scene.kafka.settings.push(BLIND.to_owned());
    // Before it looks for the first time: it sees what is there, and then nothing.
    scene.publish("a", "before").await;
    let consumer = scene.start(scene.plain());
    scene.script.wait_for(1).await;
    lag_of(&scene, 1, 0.0).await;
    eventually(PATIENCE, "the age of what is not in hand", async || {
        // Once more where it was read before the client was blind.
        if scene.metric(LAG) == 0.0 {
            write_hours_ago(&scene.kafka, 2);
        }
        match (scene.metric(LAG_SECONDS), scene.metric(AGE)) {
            (lag, 0.0) if (7_200.0..7_300.0).contains(&lag) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

fn write_hours_ago(kafka: &KafkaConfig, hours: i64) {
    let producer: BaseProducer = kafka.client().unwrap().create().unwrap();
    let written = Timestamp::now() - SignedDuration::from_hours(hours);
    let record = BaseRecord::<str, str>::to(TOPIC.name).payload("text").timestamp(written.as_millisecond());
    producer.send(record).unwrap();
    producer.flush(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_replaced_whatever_is_in_hand() {
    let mut scene = Scene::embedded().await;
    scene.kafka.settings.push(BLIND.to_owned());
    let consumer = scene.start(scene.plain().stall_timeout(Duration::from_secs(3)));
    // What is in hand all the while must not hide it.
    scene.script.away.store(true, Ordering::SeqCst);
    scene.publish("a", "before").await;
    eventually(PATIENCE, "a record that waits", async || match scene.metric("consumer_blocked_keys") {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    lag_of(&scene, 1, 1.0).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.publish("a", "after").await;
    eventually(PATIENCE, "complaint", async || match consumer.ready() {
        Err(NotReady::NothingRead { group: GROUP, stall }) if stall.position == 1 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(scene.script.handled(), [""; 0], "it is in hand");
    scene.script.away.store(false, Ordering::SeqCst);
    scene.script.wait_for(2).await;
    assert_eq!(scene.script.of_key("a"), ["before", "after"], "nothing was handled twice");
    eventually(PATIENCE, "readiness", async || consumer.ready()).await;
    // On a busy machine the second client may be blind as well before it reads.
    assert!(scene.metric("consumer_client_replacements_total") >= 1.0);
    scene.wait_for_commit(2).await;
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_failed_for_good_is_replaced() {
    let mut scene = Scene::embedded().await;
    scene.kafka.settings.push("group.protocol=classic".to_owned());
    scene
        .mock()
        .cluster()
        .request_errors(RDKafkaApiKey::JoinGroup, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID]);
    scene.publish("a", "ok").await;
    let consumer = scene.start(scene.plain());
    scene.script.wait_for(1).await;
    assert_eq!(scene.metric("consumer_client_replacements_total"), 1.0);
    scene.wait_for_commit(1).await;
    consumer.ready().unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

struct Count(Arc<AtomicUsize>);

impl RawHandler for Count {
    async fn handle(&self, _record: &Record) -> Result<(), HandlerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn write_in_a_transaction(kafka: &KafkaConfig, topic: &str) {
    let mut config = kafka.client().unwrap();
    let producer: BaseProducer = config.set("transactional.id", topic).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<str, str>::to(topic).payload("text")).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
}

/// Only a real Kafka writes end marks.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_mark_of_a_transaction_is_no_stall() {
    let Ok(brokers) = std::env::var("TEST_KAFKA_BROKERS") else { return };
    for protocol in ["classic", "consumer"] {
        let mut scene = Scene::new().await;
        scene.kafka = KafkaConfig { brokers: brokers.clone(), settings: vec![format!("group.protocol={protocol}")] };
        let name: &'static str = format!("marks-{}", uuid::Uuid::now_v7()).leak();
        let topic = TopicSpec { name: name.to_owned(), partitions: 1, retention: Duration::from_secs(3600) };
        topics::ensure(&scene.kafka, &[topic]).await.unwrap();
        let write = async || {
            let kafka = KafkaConfig { brokers: brokers.clone(), settings: Vec::new() };
            tokio::task::spawn_blocking(move || write_in_a_transaction(&kafka, name)).await.unwrap();
        };
        write().await;
        let handled = Arc::new(AtomicUsize::new(0));
        let builder = ConsumerBuilder::new(name).raw(vec![name.to_owned()], Count(handled.clone()));
        let consumer = scene.start(builder.stall_timeout(Duration::from_secs(2)));
        for round in 1..=2 {
            eventually(PATIENCE, "handling", async || match handled.load(Ordering::SeqCst) {
                count if count == round => Ok(()),
                other => Err(other),
            })
            .await;
            lag_of(&scene, 1, 1.0).await;
            eventually(PATIENCE, "no record waits", async || match scene.metric(LAG_SECONDS) {
                0.0 => Ok(()),
                other => Err(other),
            })
            .await;
            // To call that a stall would take two seconds, one to notice, and less than two to look.
            tokio::time::sleep(Duration::from_secs(8)).await;
            consumer.ready().unwrap();
            assert_eq!(scene.metric("consumer_client_replacements_total"), 0.0, "{protocol}");
            write().await;
        }
        consumer.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}
