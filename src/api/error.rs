//! What clients hear when something is wrong: `{"id", "message", "resource"?}` with a fitting status.
#![forbid(unsafe_code)]

use crate::control::{ControlError, Resource};
use crate::domain::formation::FormationError;
use crate::store::StoreError;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    id: &'static str,
    message: String,
    resource: Option<Resource>,
    /// In so many seconds another try makes sense.
    retry_after: Option<u64>,
}

pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, id: &'static str, message: impl Into<String>) -> Self {
        Self { status, id, message: message.into(), resource: None, retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_params", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    pub(super) fn bad_range() -> Self {
        let message = "The Range header can't be satisfied; its form is `<field> <first>..<last>; max=N, order=desc`.";
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "requested_range_not_satisfiable", message)
    }

    pub(super) fn not_found(resource: Resource) -> Self {
        // The word for clients may have an underscore, `add_on`.
        let message = format!("Couldn't find that {}.", resource.to_string().replace('_', "-"));
        Self { resource: Some(resource), ..Self::new(StatusCode::NOT_FOUND, "not_found", message) }
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        let message = "Something went wrong here; the server's log says what.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", message)
    }

    fn rate_limit(error: &ControlError, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", sentence(error)) }
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

/// For paths and methods that are none of ours.
pub(super) async fn no_such_endpoint() -> ApiError {
    let message = "There is no such endpoint; check the path and the HTTP method.";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound(resource) => Self::not_found(resource),
            ControlError::Denied => {
                Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid credentials provided.")
            }
            ControlError::Forbidden { .. } | ControlError::Lacks { .. } => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", sentence(&error))
            }
            ControlError::Busy => Self::rate_limit(&error, 1),
            ControlError::TooManySources => Self::rate_limit(&error, 3600),
            ControlError::TooManyGuesses { seconds } => Self::rate_limit(&error, seconds),
            ControlError::NameTaken(name) => Self::invalid(format!("Name {name} is already taken")),
            // Begins with the name of a process type, which keeps its letters.
            ControlError::Formation(error @ (FormationError::Range { .. } | FormationError::Twice(_))) => {
                Self::invalid(format!("{error}."))
            }
            ControlError::Invalid(message) => Self::invalid(message),
            ControlError::Conflict(message) => Self::new(StatusCode::CONFLICT, "conflict", message),
            ControlError::SourceTooLarge { .. } => Self::too_large(sentence(&error)),
            ControlError::DiskFull => Self::unavailable("The server's disk is full: nothing was changed."),
            ControlError::BrokenUpload => Self::bad_request("The upload broke off; send it again."),
            ControlError::Store(StoreError::Full { .. }) => {
                Self::unavailable("The disk that holds the server's database is full: nothing was changed.")
            }
            ControlError::Egress(_) => Self::unavailable(sentence(&error)),
            ControlError::Store(_) | ControlError::Io(_) | ControlError::Tls(_) => Self::internal(&error),
            ControlError::Build(ref failed) if failed.is_internal() => Self::internal(&error),
            ControlError::AppName(_)
            | ControlError::ProcessType(_)
            | ControlError::Release(_)
            | ControlError::Formation(_)
            | ControlError::Scope(_)
            | ControlError::Permission(_)
            | ControlError::Drain(_)
            | ControlError::Hostname(_)
            | ControlError::Certificate(_)
            | ControlError::Oauth(_)
            | ControlError::Pipeline(_)
            | ControlError::Addon(_)
            | ControlError::Destination(_)
            | ControlError::Checksum { .. }
            | ControlError::Run(_)
            | ControlError::Build(_) => Self::invalid(sentence(&error)),
        }
    }
}

/// Lower-case error texts as sentences.
fn sentence(error: &ControlError) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let stop = if text.ends_with(['.', '!', '?']) { None } else { Some('.') };
    first.into_iter().chain(letters).chain(stop).collect()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "id": self.id, "message": self.message });
        if let Some(resource) = self.resource {
            body["resource"] = resource.to_string().into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
