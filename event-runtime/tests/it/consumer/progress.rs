//! What a consumer says about how far it is.

use std::time::Duration;

use test_support::eventually;

use super::scene::{PATIENCE, Scene};

const LAG: &str = "consumer_lag_records";
const AGE: &str = "consumer_oldest_unhandled_seconds";

async fn lag(scene: &Scene, wanted: f64) {
    eventually(PATIENCE, "lag", async || match (scene.series(LAG).len(), scene.metric(LAG)) {
        (2, lag) if lag == wanted => Ok(()),
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
    lag(&scene, 0.0).await;
    assert_eq!(scene.metric(AGE), 0.0, "nothing is in hand");

    let second = scene.start_apart(scene.plain());
    eventually(PATIENCE, "one partition each", async || {
        let (lags, ages) = (scene.series(LAG), scene.series(AGE));
        if second.ready().is_ok() && lags.len() == 1 && ages.len() == 1 { Ok(()) } else { Err((lags, ages)) }
    })
    .await;
    second.shutdown(Duration::from_secs(5)).await.unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(scene.series(LAG), [""; 0], "a consumer that has stopped owns nothing");

    // What comes while nobody reads is the lag of whoever reads next, who has handled nothing yet.
    scene.publish_to(1, "b", "slow 5000").await;
    let next = scene.start(scene.plain());
    lag(&scene, 1.0).await;
    next.shutdown(Duration::from_secs(5)).await.unwrap();
}
