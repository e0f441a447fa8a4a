//! Revoke, shutdown, pause and resume.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use event_runtime::consumer::ConsumerMetrics;
use test_support::eventually;

use super::scene::{PATIENCE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn revoke_drains_then_commits() {
    // One key a partition: so nothing is handled ahead of a gap, and a record handled twice is one not committed.
    const PARTITIONS: usize = 4;
    let scene = Scene::with_partitions(PARTITIONS as i32).await;
    // Without a database: nothing but the committed offsets keeps a record from being handled twice.
    let first = scene.start(scene.plain());
    eventually(PATIENCE, "assignment", async || first.ready()).await;
    let second = scene.start(scene.plain());
    // The new member is assigned partitions while the old one is at work on all of them.
    let mut rounds = Vec::new();
    while second.ready().is_err() {
        assert!(rounds.len() < 200, "the second consumer is assigned nothing");
        let text = format!("slow 100 {}", rounds.len());
        for partition in 0..PARTITIONS {
            scene.publish_to(partition, &format!("key-{partition}"), &text).await;
        }
        rounds.push(text);
        scene.script.wait_for((rounds.len() - 1) * PARTITIONS).await;
    }
    let published = rounds.len() * PARTITIONS;
    scene.script.wait_for(published).await;
    scene.wait_for_commit(published as i64).await;
    assert_eq!(scene.script.handled().len(), published, "nothing was handled twice");
    assert_eq!(scene.script.begun.load(Ordering::SeqCst), published, "nothing was cut off");
    for key in 0..PARTITIONS {
        assert_eq!(scene.script.of_key(&format!("key-{key}")), rounds);
    }
    assert!(scene.metric("consumer_drain_seconds_count") >= 1.0, "there was a revoke");
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    second.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_handles_nothing_twice() {
    const PARTITIONS: i32 = 4;
    let scene = Arc::new(Scene::with_partitions(PARTITIONS).await);
    // Without a database: nothing but the committed offsets keeps a record from being handled twice.
    let joined = async || {
        let member = scene.start(scene.plain());
        eventually(PATIENCE, "assignment", async || member.ready()).await;
        member
    };
    let (first, second) = (joined().await, joined().await);
    let rolled = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (scene, rolled) = (scene.clone(), rolled.clone());
        async move {
            let mut published = 0;
            while !rolled.load(Ordering::SeqCst) {
                scene.publish(&format!("key-{}", published % 50), &format!("slow 10 {published}")).await;
                published += 1;
            }
            published
        }
    });
    // Each instance ends, and its successor comes, as a deployment does it.
    let mut members = Vec::new();
    for leaving in [first, second] {
        leaving.shutdown(Duration::from_secs(5)).await.unwrap();
        members.push(joined().await);
    }
    rolled.store(true, Ordering::SeqCst);
    let published: usize = load.await.unwrap();
    scene.wait_for_commit(published as i64).await;
    let handled = scene.script.handled();
    let twice = handled.len() - handled.iter().collect::<HashSet<_>>().len();
    println!("{published} records through a rolling restart of both instances, {twice} handled twice");
    assert_eq!((handled.len(), twice), (published, 0));
    for key in 0..50 {
        let numbers = scene.script.of_key(&format!("key-{key}"));
        let number = |text: &String| text.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
        assert!(numbers.is_sorted_by_key(number), "{numbers:?}");
    }
    for member in members {
        member.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

/// A static member (`group.instance.id`) that comes back within its session takes up the partitions it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_restarts_takes_no_partition_of_another() {
    const PARTITIONS: i32 = 4;
    let scene = Scene::with_partitions(PARTITIONS).await;
    let elsewhere = ConsumerMetrics::default();
    let staying = scene.start_static(scene.plain(), "staying", scene.metrics());
    let restarting = scene.start_static(scene.plain(), "restarting", elsewhere.clone());
    // Each has its half once both are heard of; the first may have had all.
    eventually(PATIENCE, "an assignment each", async || {
        staying.ready().and(restarting.ready()).map_err(|error| error.to_string())?;
        match scene.metric("consumer_assigned_partitions") {
            2.0 => Ok(()),
            other => Err(format!("{other} partitions stayed")),
        }
    })
    .await;
    let drained = scene.metric("consumer_drain_seconds_count");

    for round in 0..20 {
        scene.publish(&format!("key-{round}"), "before").await;
    }
    scene.script.wait_for(20).await;
    restarting.shutdown(Duration::from_secs(5)).await.unwrap();
    for round in 0..20 {
        scene.publish(&format!("key-{round}"), "after").await;
    }
    let restarted = scene.start_static(scene.plain(), "restarting", elsewhere);
    scene.script.wait_for(40).await;
    scene.wait_for_commit(40).await;
    assert_eq!(scene.script.handled().len(), 40, "nothing was handled twice");
    assert_eq!(scene.metric("consumer_assigned_partitions"), 2.0);
    assert_eq!(scene.metric("consumer_drain_seconds_count"), drained, "the other member gave nothing back");
    staying.shutdown(Duration::from_secs(5)).await.unwrap();
    restarted.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_drains_then_commits() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.plain());
    scene.publish("a", "slow 500").await;
    scene.publish("a", "not begun").await;
    eventually(PATIENCE, "attempt", async || match scene.script.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(scene.script.of_key("a"), ["slow 500"], "what ran was waited for, the rest not begun");
    assert_eq!(scene.committed(), 1);

    let again = scene.start(scene.plain());
    scene.script.wait_for(2).await;
    assert_eq!(scene.script.of_key("a"), ["slow 500", "not begun"]);
    again.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_cuts_off_what_does_not_end() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.plain());
    scene.publish("a", "slow 60000").await;
    eventually(PATIENCE, "attempt", async || match scene.script.running.load(Ordering::SeqCst) {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    let began = Instant::now();
    consumer.shutdown(Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    assert_eq!(scene.committed(), 0, "what was cut off is not committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_partition_is_read_at_once() {
    const RECORDS: usize = 300;
    const BUDGET: usize = 10;
    let scene = Scene::new().await;
    for number in 0..RECORDS {
        scene.publish(&format!("key-{number}"), "ok").await;
    }
    let consumer = scene.start(scene.plain().budget(BUDGET, 1 << 20).concurrency(1));
    scene.script.wait_for(RECORDS).await;
    let times = scene.script.times();
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    // Of every few records one waits for a resume: below 50 ms on a quiet machine; without the seek, half a second.
    let slowest = gaps[gaps.len() * 99 / 100];
    println!("99 of 100 gaps are below {slowest:?}");
    assert!(slowest < Duration::from_millis(250), "99 of 100 gaps are below {slowest:?}");
    assert_eq!(scene.script.handled().len(), RECORDS);
    consumer.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_budget_a_partition_is_paused_and_the_consumer_stays_in_its_group() {
    let scene = Scene::new().await;
    let consumer = scene.start(scene.plain().budget(5, 1 << 20));
    for number in 0..20 {
        scene.publish("a", &format!("slow 50 {number}")).await;
    }
    eventually(PATIENCE, "pause", async || match scene.metric("consumer_paused_partitions") {
        1.0 => Ok(()),
        other => Err(other),
    })
    .await;
    consumer.ready().unwrap();
    let mut most = 0;
    eventually(PATIENCE, "20 records handled", async || {
        most = most.max(consumer.inspect("a").await.len());
        let handled = scene.script.handled().len();
        if handled == 20 { Ok(()) } else { Err(handled) }
    })
    .await;
    // The pause reaches the client a moment after it was decided.
    assert!(most <= 10, "{most} records in hand");
    scene.wait_for_commit(20).await;
    assert_eq!(scene.metric("consumer_paused_partitions"), 0.0);
    assert_eq!(scene.script.handled().len(), 20);
}
