use std::error::Error as StdError;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

use crate::error::{Chain, is_unavailable};

const DATABASE_AWAY: &str = "the database cannot be reached just now; try again";

/// An error as HTTP says it: problem details, RFC 9457. Answering a request with one of status 5xx logs it, with the
/// whole chain of causes; the client sees `detail` only.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// A problem with `status`; `detail` says what was wrong with this request and what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), extensions: Map::new(), headers: Vec::new(), source: None }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: it contradicts what is there.
    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    /// 422: understood, and not acceptable.
    pub fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 503: something this service needs is away; try again in a second.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 500: our fault. The client is told no details; the log has them.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; the service's log says what")
            .source(source)
    }

    /// The same with a further member, such as `code`.
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.extensions.insert(member.to_owned(), value.into());
        self
    }

    /// The same with a response header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// The same with its cause, for the log.
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Problem {
        self.source = Some(source.into());
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What was wrong with this request.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    fn log(&self) {
        let error = self.source.as_deref().map_or_else(|| self.detail.clone(), |source| Chain(source).to_string());
        match self.status {
            // What is away is reported by whoever waits for it; a line a refused request would bury that.
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(error, "request refused"),
            _ => tracing::error!(error, "request failed"),
        }
    }

    fn body(mut self) -> String {
        let title = self.status.canonical_reason().unwrap_or("Error");
        // `type` may be given by a member; `about:blank` says that the title is all there is to know.
        let kind = self.extensions.remove("type").unwrap_or_else(|| "about:blank".into());
        let mut members = Map::new();
        members.insert("type".into(), kind);
        members.insert("title".into(), title.into());
        members.insert("status".into(), self.status.as_u16().into());
        members.insert("detail".into(), self.detail.into());
        for (member, value) in self.extensions {
            members.entry(member).or_insert(value);
        }
        Value::Object(members).to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        if self.status.is_server_error() {
            self.log();
        }
        let headers = std::mem::take(&mut self.headers);
        let status = self.status;
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], self.body()).into_response();
        response.headers_mut().extend(headers);
        response
    }
}

impl From<sqlx::Error> for Problem {
    /// 503 where the database cannot be reached, else 500.
    fn from(error: sqlx::Error) -> Problem {
        match is_unavailable(&error) {
            true => Problem::unavailable(DATABASE_AWAY).source(error),
            false => Problem::internal(error),
        }
    }
}

impl From<anyhow::Error> for Problem {
    /// A database that cannot be reached, anywhere in the chain, is 503; everything else is 500.
    fn from(error: anyhow::Error) -> Problem {
        let away = error.chain().filter_map(|cause| cause.downcast_ref()).any(is_unavailable);
        match away {
            true => Problem::unavailable(DATABASE_AWAY).source(error),
            false => Problem::internal(error),
        }
    }
}

impl From<crate::outbox::EncodeError> for Problem {
    fn from(error: crate::outbox::EncodeError) -> Problem {
        Problem::internal(error)
    }
}
