//! What every handler wants to know of a request: who asks, for which app, with what body, at which address.
#![forbid(unsafe_code)]

use super::error::ApiError;
use crate::control::tokens::{self, Peer};
use crate::control::{Control, ControlError, apps};
use crate::domain::app::App;
use crate::domain::scope;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The largest JSON body: the largest set of config vars with everything escaped is smaller.
const MAX_BODY: usize = 1 << 20;

/// Gives every answer a `Request-Id`: the client's own, of which it may send a list, or a new one.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let sent = request.headers().get(REQUEST_ID).and_then(|ids| ids.to_str().ok());
    let first = sent.and_then(|ids| ids.split(',').next()?.trim().parse::<Uuid>().ok());
    let id = first.unwrap_or_else(Uuid::new_v4).to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(request = %id, %method, path = redacted(&path), status = response.status().as_u16(), "answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Paths whose last part is a secret, or may have one, are logged without it.
fn redacted(path: &str) -> &str {
    const DRAINS: &str = "/log-drains/";
    if let Some(at) = path.find(DRAINS) {
        return &path[..at + DRAINS.len()];
    }
    let secret = ["/streams/", "/sources/", "/logs/", "/attach/"].into_iter().find(|prefix| path.starts_with(prefix));
    secret.unwrap_or(path)
}

/// Lets a request pass with its [`Actor`](crate::domain::actor::Actor) among the extensions.
pub(super) async fn authenticate(State(control): State<Control>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get().copied().unwrap_or(Peer::Network);
    match tokens::authenticate(&control, peer, authorization(request.headers())).await {
        Ok((actor, scopes)) => {
            let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            if !scopes.permit(scope::needed(request.method().as_str(), route)) {
                return ApiError::from(ControlError::Forbidden { has: scopes }).into_response();
            }
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    // One that is no text is a wrong one, not a missing one.
    headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default())
}

/// The named parts of a path.
#[derive(Debug)]
pub(super) struct Segments(Vec<(String, String)>);

impl Segments {
    /// The part that the route calls `name`.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = RawPathParams::from_request_parts(parts, state).await;
        let raw = raw.map_err(|_| ApiError::bad_request("The path is not valid UTF-8."))?;
        Ok(Self(raw.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }
}

/// The app that a path names, by name or UUID, and the path's other parts.
#[derive(Debug)]
pub(super) struct At {
    pub(super) app: App,
    pub(super) path: Segments,
}

impl FromRequestParts<Control> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, control: &Control) -> Result<Self, ApiError> {
        let path = Segments::from_request_parts(parts, control).await?;
        let app = apps::find(control, path.get("app")).await?;
        Ok(Self { app, path })
    }
}

/// A name or an id, or a resource that is named by `{"id"}` or `{"name"}`; clients write either.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a name or an id")]
pub(super) enum Which {
    Plain(String),
    Id { id: String },
    Name { name: String },
}

impl Which {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Id { id: text } | Self::Name { name: text } => text,
        }
    }
}

/// A JSON body, whatever its content type says; none at all is `{}`.
#[derive(Debug)]
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Control> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Control) -> Result<Self, ApiError> {
        let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let bytes = bytes.map_err(|_| ApiError::too_large("The request body is larger than 1 MiB or broke off."))?;
        let text = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes[..] };
        serde_json::from_slice(text).map(Self).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    // Clients need not know our types.
    let text = error.to_string().replace("usize", "a whole number").replace("u32", "a whole number");
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::bad_request(format!("The request body is not JSON: {text}."))
        }
        Category::Data if text.starts_with("missing field") => {
            ApiError::bad_request(format!("The request body is incomplete: {text}."))
        }
        Category::Data => ApiError::invalid(format!("The request body has something unexpected: {text}.")),
    }
}

/// What a request came by, put into its extensions by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Where the client reached us, for the URLs in our answers.
#[derive(Clone, Debug)]
pub(super) struct Base {
    scheme: Scheme,
    host: String,
}

impl Base {
    /// `path` begins with a slash.
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{path}", self.host)
    }

    /// Host and port, for what is reached by neither of HTTP's schemes.
    pub(super) fn authority(&self) -> String {
        let port = self.host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        match self.scheme {
            _ if port => self.host.clone(),
            Scheme::Http => format!("{}:80", self.host),
            Scheme::Https => format!("{}:443", self.host),
        }
    }

    /// The path of a URL, when it is one of ours.
    pub(super) fn own_path<'a>(&self, url: &'a str) -> Option<&'a str> {
        if url.starts_with('/') {
            return Some(url);
        }
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let (host, _) = rest.split_once('/')?;
        host.eq_ignore_ascii_case(&self.host).then(|| &rest[host.len()..])
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let plain =
            |host: &&str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).filter(plain);
        let scheme = parts.extensions.get().copied().unwrap_or(Scheme::Http);
        Ok(Self { scheme, host: host.unwrap_or("localhost").to_owned() })
    }
}

/// `2026-11-22T17:02:45Z`
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
