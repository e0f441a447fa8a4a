use std::time::{Duration, Instant};

use axum::{Router, routing::get as route_get};
use test_support::{eventually, records};

use super::scene::{Ping, Scene, get, get_json, ready};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_hand_is_finished_before_the_end() {
    let scene = Scene::new();
    let service = scene.start().await;
    ready(&service).await;
    scene.gate.close();
    records::publish(&scene.kafka.config(), &Ping { key: "a".to_owned() }).await;
    in_hand(&service.url("/inspect/a")).await;

    service.shutdown.cancel();
    eventually(Duration::from_secs(5), "red readiness", async || match get(&service.url("/ready")).await {
        (503, text) if text.contains("the service is stopping") => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(get(&service.url("/health")).await.0, 200, "HTTP outlives the handlers");

    scene.gate.open();
    service.ended().await.unwrap();
    assert_eq!(scene.answered().await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_does_not_hold_up_the_end() {
    let mut scene = Scene::new();
    scene.config.shutdown_timeout = Duration::from_secs(2);
    let service = scene.start().await;
    ready(&service).await;
    scene.gate.close();
    records::publish(&scene.kafka.config(), &Ping { key: "a".to_owned() }).await;
    in_hand(&service.url("/inspect/a")).await;

    let began = Instant::now();
    service.stop().await.unwrap();
    // Twice the timeout, for a machine that has other things to do.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_hand_is_answered_before_the_end() {
    let scene = Scene::new();
    let gate = scene.gate.clone();
    let (entered, mut has_entered) = tokio::sync::watch::channel(false);
    let slow = route_get(move || {
        entered.send_replace(true);
        let gate = gate.clone();
        async move {
            gate.pass().await;
            "done"
        }
    });
    let service = scene.start_with(Router::new().route("/slow", slow)).await;
    ready(&service).await;
    scene.gate.close();

    let answer = tokio::spawn({
        let url = service.url("/slow");
        async move { get(&url).await }
    });
    has_entered.wait_for(|entered| *entered).await.unwrap();
    service.shutdown.cancel();
    scene.gate.open();
    assert_eq!(answer.await.unwrap(), (200, "done".to_owned()));
    service.ended().await.unwrap();
}

async fn in_hand(url: &str) {
    eventually(Duration::from_secs(20), "record in hand", async || {
        let inspected = get_json(url).await;
        if inspected["inFlight"][0]["state"] == "running" { Ok(()) } else { Err(inspected) }
    })
    .await;
}
