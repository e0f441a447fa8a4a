//! axum's extractors with rejections that are [`Problem`]s.

use axum::{
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::Problem;

/// A JSON body, both ways.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// The parameters of the path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

/// The parameters after `?`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Json(value)),
            Err(rejection) => Err(json_problem(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found: Result<axum::extract::Path<T>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        match found {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            // A path that names nothing there can be is a path that does not exist.
            Err(rejection) if rejection.status() == StatusCode::BAD_REQUEST => {
                Err(Problem::not_found(format!("there is nothing at {}: {}", parts.uri.path(), rejection.body_text())))
            }
            Err(rejection) => Err(Problem::internal(rejection.body_text())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        found.map(|axum::extract::Query(value)| Query(value)).map_err(|rejection| {
            Problem::bad_request(format!("the query parameters cannot be used: {}", cause(&rejection)))
        })
    }
}

fn json_problem(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::JsonSyntaxError(_) => {
            Problem::bad_request(format!("the body is not JSON: {}", cause(rejection)))
        }
        JsonRejection::JsonDataError(_) => {
            Problem::unprocessable(format!("the body has not the expected form: {}", cause(rejection)))
        }
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON: send it with content-type: application/json",
        ),
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this service reads")
        }
        other => Problem::new(other.status(), format!("the body cannot be read: {}", cause(other))),
    }
}

/// The innermost cause: serde's words, with line and column, without axum's introduction.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
