use std::time::{Duration, Instant};

use axum::{Router, routing};
use event_runtime::{Service, config::KafkaConfig};
use serde_json::json;
use test_support::eventually;

use super::scene::{Scene, get, get_json, http_only, ready, service_config};

#[tokio::test]
async fn a_used_port_is_an_error_that_says_how_to_choose_another() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = service_config(KafkaConfig::new("127.0.0.1:1"), "sqlite::memory:").listen(address);
    let error = Service::bind("ping-service", 0, config).await.err().unwrap();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "port {} on 127.0.0.1 is in use; choose another with --listen 127.0.0.1:0 (or LISTEN), which takes a free port",
            address.port()
        )
    );
}

#[tokio::test]
async fn a_bad_setting_ends_the_start_at_once() {
    for (setting, database_url, expected) in [
        ("no.such.key=1", "sqlite::memory:", "-X no.such.key: No such configuration property"),
        ("group.protocol=consumer", "mysql://u:s3cret@h/d", "postgres:// or sqlite:"),
    ] {
        let mut config = service_config(KafkaConfig::new("127.0.0.1:1"), database_url);
        config.kafka.settings.push(setting.to_owned());
        let error = format!("{:#}", Service::bind("ping-service", 0, config).await.err().unwrap());
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_kafka_and_is_ready_when_it_comes() {
    let scene = Scene::new();
    scene.kafka.cluster().broker_down(1).unwrap();
    let service = scene.start().await;

    let expected = format!("waiting for Kafka at {}", scene.config.kafka.brokers);
    eventually(Duration::from_secs(10), "reason", async || match get(&service.url("/ready")).await {
        (503, text) if text.contains(&expected) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(get(&service.url("/health")).await.0, 200, "alive meanwhile");
    assert_eq!(get_json(&service.url("/inspect/a")).await["inFlight"], json!([]), "answers meanwhile");

    scene.kafka.cluster().broker_up(1).unwrap();
    ready(&service).await;
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_waited_for_and_shown_without_its_password() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://shop:s3cret@{nobody}/orders");
    let routes = Router::new().route("/page", routing::get(async || "page"));
    let service = http_only(routes, |config| config.database_url = url).await;

    let answer = get_json(&service.url("/ready")).await;
    let expected = json!({
        "status": "not ready",
        "reasons": [format!("waiting for the database at postgres://{nobody}/orders")]
    });
    assert_eq!(answer, expected);
    let (status, refusal) = get(&service.url("/page")).await;
    assert!(status == 503 && refusal.contains("the service is starting: waiting for the database at"), "{refusal}");

    let began = Instant::now();
    service.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "waiting does not hold up the end: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_file_that_cannot_be_written_ends_the_service_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-such-folder/orders.db");
    let url = format!("sqlite://{}", file.display());
    let service = http_only(Router::new(), |config| config.database_url = url).await;
    let error = format!("{:#}", service.ended().await.unwrap_err());
    assert!(error.contains(&file.display().to_string()) && error.contains("must exist and be writable"), "{error}");
}
