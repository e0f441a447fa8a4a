use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use tracing::Instrument;

use crate::{
    faults::{Admission, Failure, Faults, Mode, Refusal, Setting},
    ledger::{Charge, ChargeRequest, Ledger, LedgerError},
    problem::Problem,
    token::{Behaviour, FLAKY_FAILURES, behaviour},
};

/// How long a request with `tok_timeout` is held: longer than any caller waits.
const HOLD: Duration = Duration::from_secs(60);
const MAX_BODY: usize = 16 * 1024;
const MAX_KEY: usize = 255;

/// What the requests share.
#[derive(Clone)]
pub struct Shared {
    pub ledger: Arc<Ledger>,
    pub faults: Arc<Faults>,
    /// Turns true when the gateway stops.
    pub stopped: watch::Receiver<bool>,
}

/// All routes.
pub fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/charges", post(create_charge).get(list_charges))
        .route("/charges/{id}/refunds", post(refund_charge))
        .route("/faults", get(get_faults).put(put_faults))
        .route("/health", get(health))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Charging { shared, failures: Arc::default() })
}

#[derive(Clone)]
struct Charging {
    shared: Shared,
    /// How often `tok_flaky` has failed, by key.
    failures: Arc<Mutex<HashMap<String, u32>>>,
}

async fn create_charge(
    State(state): State<Charging>,
    headers: HeaderMap,
    body: Result<Json<ChargeRequest>, JsonRejection>,
) -> Result<Json<Charge>, Problem> {
    let Admission { delay, failure } = state.admit()?;
    let key = idempotency_key(&headers)?;
    let Json(request) = body.map_err(|rejection| malformed(rejection.status(), rejection.body_text()))?;
    check(&request)?;
    // In a task of its own, which goes on when the caller hangs up: a late charge is a charge.
    let charge = async move { failing(failure, state.charge(&key, &request, delay)).await };
    let work = tokio::spawn(charge.in_current_span());
    work.await.unwrap_or_else(|error| Err(internal(&error.to_string())))
}

async fn refund_charge(State(state): State<Charging>, Path(id): Path<String>) -> Result<Json<Charge>, Problem> {
    let Admission { delay, failure } = state.admit()?;
    let refund = async move {
        state.sleep(delay).await?;
        let charge = state.shared.ledger.refund(&id, Timestamp::now())?;
        tracing::info!(key = %charge.idempotency_key, amount = %charge.amount, charge = %charge.id, "refunded");
        Ok(Json(charge))
    };
    let work = tokio::spawn(failing(failure, refund).in_current_span());
    work.await.unwrap_or_else(|error| Err(internal(&error.to_string())))
}

/// Does `work`, unless it is to fail; where it fails afterwards, its answer is lost.
async fn failing<T>(failure: Option<Failure>, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let carried_out = failure != Some(Failure::Before);
    let answer = if carried_out { Some(work.await) } else { None };
    match (failure, answer) {
        (None, Some(answer)) => answer,
        _ => {
            tracing::info!(carried_out, "failed on purpose (failureRate)");
            Err(internal("the card network did not answer"))
        }
    }
}

/// A misspelt name must not answer with the whole ledger.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListQuery {
    idempotency_key: Option<String>,
}

async fn list_charges(
    State(state): State<Charging>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Charge>>, Problem> {
    let Query(query) = query.map_err(|rejection| malformed(rejection.status(), rejection.body_text()))?;
    match query.idempotency_key {
        Some(_) if state.shared.faults.is_down() => Err(down()),
        Some(key) => Ok(Json(state.shared.ledger.by_key(&key).into_iter().collect())),
        None => Ok(Json(state.shared.ledger.all())),
    }
}

async fn get_faults(State(state): State<Charging>) -> Json<Setting> {
    Json(state.shared.faults.get())
}

async fn put_faults(
    State(state): State<Charging>,
    body: Result<Json<Setting>, JsonRejection>,
) -> Result<Json<Setting>, Problem> {
    let Json(wanted) = body.map_err(|rejection| malformed(rejection.status(), rejection.body_text()))?;
    let setting = state.shared.faults.set(wanted);
    let mode = match setting.mode {
        Mode::Up => "up",
        Mode::Down => "down",
        Mode::Slow => "slow",
    };
    let failure_rate = setting.failure_rate.map(f64::from);
    tracing::info!(mode, delay_ms = setting.delay_ms, max_rps = setting.max_rps, failure_rate, "faults set");
    Ok(Json(setting))
}

async fn health(State(state): State<Charging>) -> Response {
    if state.shared.faults.is_down() {
        return down().into_response();
    }
    Json(serde_json::json!({"status": "up", "fake": true})).into_response()
}

impl Charging {
    fn admit(&self) -> Result<Admission, Problem> {
        self.shared.faults.admit().map_err(|refusal| match refusal {
            Refusal::Down => down(),
            Refusal::Limited(wait) => {
                let seconds = wait.as_secs() + 1;
                let detail = format!("too many requests: come back in {seconds} s");
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(seconds)
            }
        })
    }

    async fn charge(&self, key: &str, request: &ChargeRequest, delay: Duration) -> Result<Json<Charge>, Problem> {
        self.sleep(delay).await?;
        let ledger = &self.shared.ledger;
        // Tells a key that was used with another body before the new body has any consequence.
        ledger.find(key, request)?;
        let amount = &request.amount;
        match behaviour(&request.token) {
            Behaviour::Decline(code, detail) => {
                ledger.decline(key, request)?;
                tracing::info!(key, %amount, code, "declined");
                return Err(Problem::new(StatusCode::PAYMENT_REQUIRED, code, detail));
            }
            Behaviour::Flaky if self.fails_once_more(key) => {
                tracing::info!(key, %amount, "failed on purpose (tok_flaky)");
                return Err(internal("the card network did not answer"));
            }
            Behaviour::Charge | Behaviour::Flaky | Behaviour::ChargeAndHang => {}
        }
        let charge = ledger.charge(key, request, Timestamp::now())?;
        tracing::info!(key, %amount, charge = %charge.id, "charged");
        if behaviour(&request.token) == Behaviour::ChargeAndHang {
            self.sleep(HOLD).await?;
            return Err(Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the card network did not answer in time",
            ));
        }
        Ok(Json(charge))
    }

    fn fails_once_more(&self, key: &str) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.entry(key.to_owned()).or_default();
        *failed = failed.saturating_add(1);
        *failed <= FLAKY_FAILURES
    }

    /// Sleeps, unless the gateway stops meanwhile.
    async fn sleep(&self, time: Duration) -> Result<(), Problem> {
        if time.is_zero() {
            return Ok(());
        }
        let mut stopped = self.shared.stopped.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            _ = stopped.wait_for(|stopped| *stopped) => Err(down()),
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if key.is_empty() || key.len() > MAX_KEY {
        let detail = format!("send an Idempotency-Key header of 1 to {MAX_KEY} characters");
        return Err(malformed(StatusCode::BAD_REQUEST, detail));
    }
    Ok(key.to_owned())
}

fn check(request: &ChargeRequest) -> Result<(), Problem> {
    let currency = &request.amount.currency;
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let detail = format!("{currency:?} is no ISO 4217 currency code (three upper-case letters)");
        return Err(malformed(StatusCode::BAD_REQUEST, detail));
    }
    if request.amount.minor <= 0 {
        return Err(malformed(StatusCode::BAD_REQUEST, "the amount must be above 0 minor units".to_owned()));
    }
    Ok(())
}

fn malformed(status: StatusCode, detail: String) -> Problem {
    Problem::new(status, "invalid_request", detail)
}

fn down() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the payment gateway is down")
}

fn internal(detail: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Problem {
        match error {
            LedgerError::OtherBody(_) => {
                Problem::new(StatusCode::CONFLICT, "idempotency_key_reused", error.to_string())
            }
            LedgerError::NoCharge(_) => Problem::new(StatusCode::NOT_FOUND, "no_charge", error.to_string()),
            LedgerError::Write(source) => {
                tracing::error!(error = %source, "the ledger cannot be written");
                internal("the ledger cannot be written")
            }
        }
    }
}
