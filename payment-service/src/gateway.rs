//! The payment gateway over HTTP. The idempotency key of a charge is the order's id: however often it is asked for, the
//! gateway takes the money once.

mod line;

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header, redirect};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared_events::{Money, OrderId};
use tokio::time::Instant;

use line::Line;

/// How long a request waits while the gateway says that it gets too many. Below the time a handler has.
const RATE_LIMIT_PATIENCE: Duration = Duration::from_secs(20);
/// When the gateway does not say how long to wait.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Whatever the gateway says, it is not asked again sooner than this, nor waited for longer.
const SHORTEST_RETRY_AFTER: Duration = Duration::from_millis(50);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// How much of an answer goes into an error.
const DETAIL: usize = 200;

/// A charge as the gateway keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Charge {
    /// The gateway's id.
    pub id: String,
    /// What was taken.
    pub amount: Money,
    /// Whether it was given back.
    pub status: ChargeStatus,
}

/// Whether the money is with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeStatus {
    /// It was taken.
    Succeeded,
    /// It was given back.
    Refunded,
}

/// How the gateway answered a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// The charge made under this key, now or before.
    Charged(Charge),
    /// The card's bank said no. Final for this key.
    Declined {
        /// Why, in words a customer can read.
        reason: String,
    },
}

/// Why the gateway gave no answer that ends the matter.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It took the request, and its answer did not come in time or broke off: it may have acted.
    #[error("the payment gateway did not answer")]
    NoAnswer(#[source] reqwest::Error),
    /// It says that it failed, or that a request with this key is under way (409), and may have acted.
    #[error("the payment gateway failed with {status}: {detail}")]
    Failed {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        detail: String,
    },
    /// It gets too many requests, and did not act.
    #[error("the payment gateway is asked too often and wants {wait:?} of rest", wait = .0)]
    RateLimited(Duration),
    /// The time of whoever asks is up: this request was not made.
    #[error("no time is left to ask the payment gateway")]
    NoTimeLeft,
    /// It cannot be reached, and did not act.
    #[error("the payment gateway cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It says that it is away, and did not act.
    #[error("the payment gateway is away: {0}")]
    Away(String),
    /// What answers at this address is no payment gateway, or does not let us in.
    #[error("the payment gateway answers {0}: check PAYMENT_GATEWAY_URL")]
    NotAGateway(StatusCode),
    /// It does not take this request, now or later.
    #[error("the payment gateway refuses the request with {status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        detail: String,
    },
}

/// A client of the gateway; clones share its connections.
#[derive(Clone, Debug)]
pub struct Gateway {
    client: Client,
    url: String,
    timeout: Duration,
    line: Line,
}

#[derive(Serialize)]
struct ChargeBody<'a> {
    amount: Money,
    token: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProblemBody {
    detail: String,
}

impl Gateway {
    /// A client for the gateway at `url`, which has `timeout` for an answer. Connects to nothing yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(url: &str, timeout: Duration) -> Result<Gateway, reqwest::Error> {
        // A charge that is redirected would be a charge nobody knows where.
        let client = Client::builder().redirect(redirect::Policy::none()).build()?;
        Ok(Gateway { client, url: url.trim_end_matches('/').to_owned(), timeout, line: Line::default() })
    }

    /// How long a look-up, a charge that waits its turn, and another look-up take at the most.
    pub fn longest_wait(&self) -> Duration {
        RATE_LIMIT_PATIENCE + self.timeout * 3
    }

    /// Charges an order, until `until`. Repeating it takes no more money. Where the gateway asks to wait, this waits, for as
    /// long as `alive` holds and up to 20 s.
    ///
    /// # Errors
    /// See [`GatewayError`]. When `alive` no longer holds: [`GatewayError::RateLimited`].
    pub async fn charge(
        &self,
        order: OrderId,
        amount: Money,
        token: &str,
        until: Instant,
        alive: impl Fn() -> bool + Send,
    ) -> Result<ChargeAnswer, GatewayError> {
        self.line.pass(patience(until), alive, || self.charge_once(order, amount, token, until)).await
    }

    /// The charge made for an order, if there is one; asked for until `until`.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn find(&self, order: OrderId, until: Instant) -> Result<Option<Charge>, GatewayError> {
        let url = format!("{}/charges", self.url);
        let response = self.send(self.client.get(url).query(&[("idempotencyKey", order)]), until).await?;
        let charges: Vec<Charge> = read(accepted(response).await?).await?;
        Ok(charges.into_iter().next())
    }

    /// Gives a charge back, until `until`. Repeating it gives no more money.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn refund(&self, charge_id: &str, until: Instant) -> Result<Charge, GatewayError> {
        let url = format!("{}/charges/{charge_id}/refunds", self.url);
        let refund_once = || async { read(accepted(self.send(self.client.post(&url), until).await?).await?).await };
        self.line.pass(patience(until), || true, refund_once).await
    }

    async fn charge_once(
        &self,
        order: OrderId,
        amount: Money,
        token: &str,
        until: Instant,
    ) -> Result<ChargeAnswer, GatewayError> {
        let request = self
            .client
            .post(format!("{}/charges", self.url))
            .header("idempotency-key", order.to_string())
            .json(&ChargeBody { amount, token });
        let response = self.send(request, until).await?;
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            let reason = detail(response).await;
            return Ok(ChargeAnswer::Declined { reason });
        }
        Ok(ChargeAnswer::Charged(read(accepted(response).await?).await?))
    }

    async fn send(&self, request: RequestBuilder, until: Instant) -> Result<Response, GatewayError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(GatewayError::NoTimeLeft);
        }
        request.timeout(left.min(self.timeout)).send().await.map_err(|error| {
            // Without a connection nothing was asked; later than that, nobody knows what was done.
            if error.is_connect() || error.is_builder() {
                GatewayError::Unreachable(error)
            } else {
                GatewayError::NoAnswer(error)
            }
        })
    }
}

/// How long a request that has time until then waits its turn.
fn patience(until: Instant) -> Duration {
    RATE_LIMIT_PATIENCE.min(until.saturating_duration_since(Instant::now()))
}

async fn accepted(response: Response) -> Result<Response, GatewayError> {
    let status = response.status();
    match status {
        StatusCode::TOO_MANY_REQUESTS => Err(GatewayError::RateLimited(retry_after(&response))),
        StatusCode::SERVICE_UNAVAILABLE => Err(GatewayError::Away(detail(response).await)),
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY
            if is_problem(&response) =>
        {
            Err(GatewayError::Refused { status, detail: detail(response).await })
        }
        _ if status.is_success() => Ok(response),
        // An earlier request with the key is under way, or has taken money: whatever it is, it is no refusal.
        _ if status.is_server_error() || status == StatusCode::CONFLICT => {
            Err(GatewayError::Failed { status, detail: detail(response).await })
        }
        _ => Err(GatewayError::NotAGateway(status)),
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, GatewayError> {
    response.json().await.map_err(GatewayError::NoAnswer)
}

/// Whether the gateway speaks, and not some other server at its address.
fn is_problem(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/problem"))
}

fn retry_after(response: &Response) -> Duration {
    let value = response.headers().get(header::RETRY_AFTER);
    let seconds = value.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse().ok());
    seconds.map_or(DEFAULT_RETRY_AFTER, Duration::from_secs).clamp(SHORTEST_RETRY_AFTER, LONGEST_RETRY_AFTER)
}

async fn detail(response: Response) -> String {
    let status = response.status();
    let detail = response.json::<ProblemBody>().await.unwrap_or_default().detail;
    if detail.is_empty() { status.to_string() } else { detail.chars().take(DETAIL).collect() }
}
