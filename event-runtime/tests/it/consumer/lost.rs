//! A member whose assignment is lost: librdkafka says so, and the broker decides.

use std::{sync::atomic::Ordering, time::Duration};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use test_support::{TempDatabase, eventually};

use super::{
    crashes::{HANDLED, PATIENCE, Process},
    scene::Scene,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_cut_off_and_its_offsets_are_left_to_the_broker() {
    let mut scene = Scene::embedded().await;
    let settings = ["group.protocol=classic", "session.timeout.ms=6000", "heartbeat.interval.ms=200"];
    scene.kafka.settings.extend(settings.map(str::to_owned));
    let consumer = scene.start(scene.plain());
    scene.publish("a", "ok").await;
    scene.wait_for_commit(1).await;
    scene.publish("a", "slow 3000").await;
    eventually(PATIENCE, "attempt", async || match scene.script.begun.load(Ordering::SeqCst) {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    scene.mock().cluster().request_errors(RDKafkaApiKey::Heartbeat, &[unknown]);
    // The broker knows the member, but librdkafka has thrown its id away.
    eventually(PATIENCE, "refused commit", async || match scene.metric("consumer_commit_failures_total") {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(scene.script.of_key("a"), ["ok"], "nobody waited for what ran");
    assert_eq!(scene.metric("consumer_drain_seconds_count"), 0.0);
    scene.wait_for_commit(2).await;
    assert_eq!(scene.script.of_key("a"), ["ok", "slow 3000"]);
    assert_eq!(scene.script.begun.load(Ordering::SeqCst), 3, "it was begun again");
    consumer.ready().unwrap();
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// As a laptop's lid or a hypervisor does it, until others have its partitions and are further.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_frozen_rewinds_nothing() {
    // What a broker checks is Apache Kafka's to say.
    if std::env::var_os("TEST_KAFKA_BROKERS").is_none() {
        return;
    }
    let mut scene = Scene::new().await;
    // In the new protocol it is the broker that says how long a session lasts: 45 s.
    scene.kafka.settings.extend(["group.protocol=classic", "session.timeout.ms=6000"].map(str::to_owned));
    let database = TempDatabase::new();
    database.migrated(&[HANDLED]).await;
    let frozen = Process::start(&scene, &database);
    for number in 0..5 {
        scene.publish("a", &number.to_string()).await;
    }
    eventually(PATIENCE, "the member's commit", async || match scene.try_committed() {
        Ok(5) => Ok(()),
        other => Err(other),
    })
    .await;
    frozen.signal("-STOP");
    let other = scene.start(scene.plain());
    eventually(PATIENCE, "the frozen member's partition", async || other.ready()).await;
    scene.publish("a", "further").await;
    scene.wait_for_commit(6).await;
    let before = scene.metric("consumer_rebalances_total");
    frozen.signal("-CONT");
    eventually(PATIENCE, "its return", async || match scene.metric("consumer_rebalances_total") {
        rebalances if rebalances > before => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(scene.committed(), 6, "what it commits for what it has lost is refused");
    assert_eq!(scene.script.handled(), ["a:further"], "nothing came twice");
    frozen.stop().await;
    other.shutdown(Duration::from_secs(5)).await.unwrap();
}
