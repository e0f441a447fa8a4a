//! How long a drain, a last commit and a close take at most, when nobody answers.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use test_support::eventually;

use super::scene::{PATIENCE, Scene};

/// The last commit is not waited for any longer; see `rebalance.rs`.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
/// What a shutdown may take beyond its deadline.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// For a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// How a broker is away.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Connections are closed and refused.
    Down,
    /// Connections stay, and nothing is answered.
    Mute,
}

impl Away {
    fn begin(self, scene: &Scene) {
        let cluster = scene.mock().cluster();
        match self {
            Away::Down => cluster.broker_down(1).unwrap(),
            Away::Mute => cluster.broker_round_trip_time(1, Duration::from_secs(120)).unwrap(),
        }
    }
}

async fn running(scene: &Scene, count: usize) {
    eventually(PATIENCE, "attempts", async || match scene.script.running.load(Ordering::SeqCst) {
        running if running == count => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn metric(scene: &Scene, name: &str, wanted: f64) {
    eventually(PATIENCE, name, async || match scene.metric(name) {
        value if value == wanted => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_up_a_commit_that_nobody_acknowledges() {
    for away in [Away::Down, Away::Mute] {
        let scene = Scene::embedded().await;
        let consumer = scene.start(scene.plain());
        scene.publish("a", "slow 1000").await;
        running(&scene, 1).await;
        away.begin(&scene);
        let began = Instant::now();
        let closed = consumer.shutdown(Duration::from_secs(10)).await;
        let took = began.elapsed();
        println!("{away:?}: closed after {took:?}: {closed:?}");
        assert_eq!(scene.script.of_key("a"), ["slow 1000"], "it was waited for");
        assert!(took < Duration::from_secs(1) + COMMIT_PATIENCE + CLOSE_PATIENCE + SLACK, "took {took:?}");
        assert_eq!(scene.metric("consumer_commit_failures_total"), 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_a_broker_that_it_cannot_tell() {
    for away in [Away::Down, Away::Mute] {
        let scene = Scene::embedded().await;
        let consumer = scene.start(scene.plain());
        scene.publish("a", "ok").await;
        scene.wait_for_commit(1).await;
        away.begin(&scene);
        let began = Instant::now();
        let closed = consumer.shutdown(Duration::from_secs(1)).await;
        let took = began.elapsed();
        println!("{away:?}: closed after {took:?}: {closed:?}");
        assert!(took < Duration::from_secs(1) + CLOSE_PATIENCE + SLACK, "took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_ends_though_neither_its_handlers_nor_the_broker_do() {
    const DRAIN: Duration = Duration::from_secs(2);
    for away in [Away::Down, Away::Mute] {
        let scene = Scene::embedded_with(2).await;
        let first = scene.start(scene.plain().drain_deadline(DRAIN));
        for partition in 0..2 {
            scene.publish_to(partition, &format!("key-{partition}"), "slow 600000").await;
        }
        running(&scene, 2).await;
        let before = scene.metric("consumer_rebalances_total");
        let second = scene.start_apart(scene.plain());
        metric(&scene, "consumer_rebalances_total", before + 1.0).await;
        away.begin(&scene);
        metric(&scene, "consumer_drain_seconds_count", 1.0).await;
        let drained = Instant::now();
        // One partition's attempt is cut off.
        metric(&scene, "consumer_in_flight", 1.0).await;
        metric(&scene, "consumer_commit_failures_total", 1.0).await;
        let gave_up = drained.elapsed();
        let drain = Duration::from_secs_f64(scene.metric("consumer_drain_seconds_sum"));
        println!("{away:?}: drained for {drain:?}, gave up the commit after {gave_up:?}");
        assert!(drain >= DRAIN && drain < DRAIN + SLACK, "{drain:?}");
        assert!(gave_up < COMMIT_PATIENCE + SLACK, "{gave_up:?}");
        for consumer in [first, second] {
            let began = Instant::now();
            let closed = consumer.shutdown(Duration::ZERO).await;
            println!("{away:?}: closed after {:?}: {closed:?}", began.elapsed());
            assert!(began.elapsed() < CLOSE_PATIENCE + SLACK);
        }
    }
}
