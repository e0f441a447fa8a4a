//! What every service's HTTP answers when something is wrong.

use std::time::Duration;

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use event_runtime::http::{Json, Path, Problem, Query};
use reqwest::{Client, Method, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};
use test_support::eventually;

use super::scene::{Running, get as ask, http_only};

#[derive(Deserialize)]
struct Order {
    #[serde(rename = "quantity")]
    _quantity: u32,
}

fn routes() -> Router {
    Router::new()
        .route("/orders", post(async |Json(_): Json<Order>| StatusCode::CREATED))
        .route("/orders/{number}", get(async |Path(number): Path<u32>| number.to_string()))
        .route("/page", get(async |Query(Order { .. }): Query<Order>| "page"))
        .route("/slow", get(std::future::pending::<()>))
        .route("/panics", get(async || -> String { panic!("no coffee left") }))
        .route("/away", get(async || -> Problem { sqlx::Error::PoolTimedOut.into() }))
        .route("/broken", get(async || -> Problem { sqlx::Error::RowNotFound.into() }))
        .route(
            "/declined",
            get(async || Problem::new(StatusCode::PAYMENT_REQUIRED, "no").with("code", "card_declined")),
        )
}

/// Waits for Kafka; its own routes are served already.
async fn service() -> Running {
    let service = http_only(routes(), |config| {
        config.max_body_bytes = 100;
        config.request_timeout = Duration::from_millis(200);
    })
    .await;
    eventually(Duration::from_secs(10), "schema", async || match ask(&service.url("/ready")).await {
        (503, text) if text.contains("waiting for Kafka") => Ok(()),
        other => Err(other),
    })
    .await;
    service
}

async fn problem(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    (status, problem)
}

#[tokio::test]
async fn everything_that_goes_wrong_is_a_problem_that_says_what() {
    let service = service().await;
    for (path, status, expected) in [
        ("/nowhere", 404, "there is nothing at /nowhere"),
        ("/orders/many", 404, "there is nothing at /orders/many: "),
        ("/orders", 405, "/orders does not take GET"),
        ("/page?quantity=many", 400, "the query parameters cannot be used: "),
        ("/slow", 503, "the request took longer than 200ms"),
        ("/panics", 500, "something went wrong here; the service's log says what"),
        ("/away", 503, "the database cannot be reached just now; try again"),
        ("/broken", 500, "something went wrong here; the service's log says what"),
        ("/declined", 402, "no"),
    ] {
        let (found, problem) = problem(Client::new().get(service.url(path)).send().await.unwrap()).await;
        assert_eq!(found, status, "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{path}: {detail}");
        assert_eq!(problem["type"], "about:blank");
    }
    service.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_that_cannot_be_used_is_refused_with_the_reason() {
    let service = service().await;
    let large = format!("{{\"quantity\": 1, \"note\": {:?}}}", "x".repeat(200));
    for (content_type, body, status, expected) in [
        ("application/json", "{\"quantity\": ", 400, "the body is not JSON: quantity: EOF while parsing"),
        (
            "application/json",
            "{\"quantity\": \"many\"}",
            422,
            "the body has not the expected form: quantity: invalid type",
        ),
        ("application/json", "{}", 422, "the body has not the expected form: missing field `quantity`"),
        ("text/plain", "{\"quantity\": 1}", 415, "the body must be JSON: send it with content-type: application/json"),
        ("application/json", &large, 413, "the body is larger than 100 bytes"),
    ] {
        let request = Client::new().post(service.url("/orders")).header(header::CONTENT_TYPE, content_type);
        let (found, problem) = problem(request.body(body.to_owned()).send().await.unwrap()).await;
        assert_eq!(found, status, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(expected), "{problem}");
    }
    service.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_off_at_the_limit() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let service = service().await;
    let mut stream = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let chunk = "x".repeat(0x80);
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n80\r\n{chunk}\r\n0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("the body is larger than 100 bytes"), "{answer}");
    service.stop().await.unwrap();
}

#[tokio::test]
async fn problems_carry_their_extension_members_and_headers() {
    let service = service().await;
    let (_, declined) = problem(Client::new().get(service.url("/declined")).send().await.unwrap()).await;
    let expected = json!({
        "type": "about:blank", "title": "Payment Required", "status": 402, "detail": "no", "code": "card_declined"
    });
    assert_eq!(declined, expected);
    let away = Client::new().get(service.url("/away")).send().await.unwrap();
    assert_eq!(away.headers()[header::RETRY_AFTER], "1");
    let wrong = Client::new().request(Method::DELETE, service.url("/orders")).send().await.unwrap();
    assert_eq!(wrong.headers()[header::ALLOW], "POST");
    service.stop().await.unwrap();
}

#[tokio::test]
async fn every_answer_has_a_correlation_id() {
    let service = service().await;
    let mut seen = Vec::new();
    for given in ["0198a2f0-7d2c-7000-8000-000000000001", "not a uuid"] {
        let request = Client::new().get(service.url("/nowhere")).header("x-correlation-id", given);
        let answer = request.send().await.unwrap();
        seen.push(answer.headers()["x-correlation-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(seen[0], "0198a2f0-7d2c-7000-8000-000000000001");
    assert!(seen[1].parse::<uuid::Uuid>().is_ok(), "{}", seen[1]);
    service.stop().await.unwrap();
}
