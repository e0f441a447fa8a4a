//! A whole service: HTTP, database, relay and consumer, from its start to its end.

mod http;
pub mod scene;
mod shutdown;
mod start;

use std::time::Duration;

use scene::{Ping, Pong, Scene, get, get_json, ready};
use serde_json::json;
use shared_events::Event;
use test_support::{eventually, records};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_from_a_request_through_outbox_topic_and_handler_to_the_next_topic() {
    let scene = Scene::new();
    let service = scene.start().await;
    ready(&service).await;
    let correlation = "0198a2f0-7d2c-7000-8000-000000000001";

    let response = reqwest::Client::new()
        .post(service.url("/pings"))
        .header("x-correlation-id", correlation)
        .json(&json!({ "key": "a" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["x-correlation-id"], correlation, "echoed");

    let pongs = records::read_until(&scene.kafka.config(), Pong::TOPIC.name, Duration::from_secs(20), |found| {
        !found.is_empty()
    })
    .await;
    let header = |name| pongs[0].header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header("ce_correlationid").as_deref(), Some(correlation));
    assert_eq!(header("ce_attempt").as_deref(), Some("1"));
    assert_eq!(header("ce_source").as_deref(), Some(scene::SERVICE));
    let (_, pong): (_, Pong) = records::decode::<Pong>(&pongs[0]);
    assert_eq!(pong, Pong { key: "a".to_owned() });

    // What was published leaves the outbox once Kafka has acknowledged it.
    eventually(Duration::from_secs(10), "empty outbox", async || {
        let inspected = get_json(&service.url("/inspect/a")).await;
        match inspected["outbox"]["rows"] == 0 && inspected["inFlight"] == json!([]) {
            true => Ok(()),
            false => Err(inspected),
        }
    })
    .await;
    let (_, metrics) = get(&service.url("/metrics")).await;
    for line in [
        r#"http_server_request_duration_seconds_count{method="POST",route="/pings",status="202"} 1"#,
        r#"consumer_records_handled_total{group="ping-service",topic="pings",type="ping"} 1"#,
        "outbox_published_total 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_shows_what_is_in_hand_for_a_key() {
    let scene = Scene::new();
    let service = scene.start().await;
    ready(&service).await;
    scene.gate.close();
    records::publish(&scene.kafka.config(), &Ping { key: "held".to_owned() }).await;

    let inspected = eventually(Duration::from_secs(20), "record in hand", async || {
        let inspected = get_json(&service.url("/inspect/held")).await;
        if inspected["inFlight"][0]["state"] == "running" { Ok(inspected) } else { Err(inspected) }
    })
    .await;
    let in_hand = &inspected["inFlight"][0];
    assert_eq!(inspected["service"], scene::SERVICE);
    assert_eq!((in_hand["event"].as_str(), in_hand["attempt"].as_u64()), (Some("ping"), Some(1)));
    assert_eq!(get_json(&service.url("/inspect/other")).await["inFlight"], json!([]));

    scene.gate.open();
    service.stop().await.unwrap();
}
