//! What every handler wants to know of a request: who asks, for which app, with what body, at which address.
#![forbid(unsafe_code)]

use super::authorizations;
use super::error::{ApiError, ApiResult};
use super::rules::{self, Rule};
use crate::control::access::{self, Entry, Subject};
use crate::control::audit::{self, Address, RequestId};
use crate::control::grants::Bearer;
use crate::control::tokens::Peer;
use crate::control::{Control, ControlError, Resource, accounts};
use crate::domain::access::Caller;
use crate::domain::app::{App, AppId};
use crate::store::guard::{self, Check};
use axum::Extension;
use axum::body::{Body, Bytes};
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
use std::time::Duration;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The largest JSON body: the largest set of config vars with everything escaped is smaller.
const MAX_BODY: usize = 1 << 20;

/// A body has this long to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

async fn whole(body: Body) -> ApiResult<Bytes> {
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await;
    let read = read.map_err(|_| ApiError::bad_request("The request body did not arrive within 30 seconds."))?;
    read.map_err(|_| ApiError::too_large("The request body is larger than 1 MiB or broke off."))
}

/// Gives every answer a `Request-Id`: the client's own, of which it may send a list, or a new one.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(REQUEST_ID).and_then(|ids| ids.to_str().ok());
    let first = sent.and_then(|ids| ids.split(',').next()?.trim().parse::<Uuid>().ok());
    let id = first.unwrap_or_else(Uuid::new_v4).to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
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
    let secret =
        ["/streams/", "/sources/", "/slugs/", "/logs/", "/attach/"].into_iter().find(|prefix| path.starts_with(prefix));
    secret.unwrap_or(path)
}

/// What a handler has to say about a change, for the audit log; put into the extensions of its response.
#[derive(Clone, Debug)]
pub(super) struct Note(pub(super) String);

pub(super) fn note(text: impl Into<String>) -> Extension<Note> {
    Extension(Note(text.into()))
}

/// The app that a request has made or that its body names, for the audit log; put into the extensions of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made(pub(super) AppId);

/// An answer with both.
pub(super) type Noted<T> = (Extension<Note>, Extension<Made>, T);

/// Lets a request pass when its row in [`rules`] does, with its [`Caller`], [`Actor`](crate::domain::actor::Actor) and
/// [`App`] among the extensions, and writes down what it changes. It changes nothing in the store once that row would not
/// let it pass any more.
pub(super) async fn authenticate(State(control): State<Control>, request: Request, next: Next) -> Response {
    match entered(&control, request).await {
        Ok((request, None)) => next.run(request).await,
        Ok((request, Some(Change { event, check }))) => {
            // To its end, also when the client goes away meanwhile.
            let done = tokio::spawn(async move {
                let mut response = match check {
                    Some(check) => guard::guarded(check, next.run(request)).await,
                    None => next.run(request).await,
                };
                let note = response.extensions_mut().remove::<Note>().map(|Note(text)| text);
                let made = response.extensions_mut().remove::<Made>().map(|Made(id)| id);
                audit::end(&control, event, response.status().as_u16(), note, made).await;
                response
            });
            done.await
                .unwrap_or_else(|error| ApiError::from(ControlError::Io(std::io::Error::other(error))).into_response())
        }
        Err(error) => error.into_response(),
    }
}

/// What is to be changed.
struct Change {
    /// The number in the audit log.
    event: i64,
    /// That it may be changed still; none for a log-in, which looks itself at what was shown.
    check: Option<Check>,
}

async fn entered(control: &Control, request: Request) -> ApiResult<(Request, Option<Change>)> {
    let (mut parts, body) = request.into_parts();
    let path = parts.extensions.get().map_or("", MatchedPath::as_str).to_owned();
    let Some(rule) = rules::rule(parts.method.as_str(), &path) else {
        tracing::error!(method = %parts.method, path, "this route has no rule, and answers nobody");
        return Err(ApiError::from(ControlError::Denied));
    };
    // Before it is asked who may: by the time that a slow body is there, that may have changed.
    let body = Body::from(whole(body).await?);
    let peer = parts.extensions.get().copied().unwrap_or(Peer::Network);
    let segments = Segments::from_request_parts(&mut parts, control).await?;
    let subject = subject(rule, &segments);
    let (caller, app, check) = match let_in(control, rule, (peer, subject.clone()), &mut parts).await {
        Ok(found) => found,
        Err(error) => {
            write_down(control, rule, (peer, subject), &parts, &error).await;
            return Err(error.into());
        }
    };
    let change = match rule.action {
        Some(action) => {
            let whose = (&caller.actor, app.as_ref());
            let attempt = audit::attempt(action, whose, redacted(parts.uri.path()), peer, &parts.extensions);
            Some(Change { event: audit::begin(control, attempt).await?, check })
        }
        None => None,
    };
    parts.extensions.insert(caller.actor.clone());
    parts.extensions.insert(caller);
    app.map(|app| parts.extensions.insert(app));
    Ok((Request::from_parts(parts, body), change))
}

fn is_log_in(rule: &Rule) -> bool {
    rule.method == "POST" && rule.path == authorizations::PATH
}

/// Who asks, and for which app; what else handlers want to know of it is put among the extensions.
async fn let_in(
    control: &Control,
    rule: &Rule,
    (peer, subject): (Peer, Subject),
    parts: &mut Parts,
) -> Result<(Caller, Option<App>, Option<Check>), ControlError> {
    let header = authorization(&parts.headers);
    if is_log_in(rule) {
        let from = parts.extensions.get().copied().and_then(Address::ip);
        let (caller, proof) = accounts::log_in(control, (peer, from), header).await?;
        parts.extensions.insert(proof);
        return Ok((caller, None, None));
    }
    let entered = access::enter(control, (peer, header), rule.scope, rule.need, subject).await?;
    let Entry { caller, bearer, app, check } = entered;
    parts.extensions.insert(bearer);
    Ok((caller, app, Some(check)))
}

/// Writes a refusal into the audit log: of what would have changed something, of a read only when it is forbidden.
async fn write_down(
    control: &Control,
    rule: &Rule,
    (peer, subject): (Peer, Subject),
    parts: &Parts,
    error: &ControlError,
) {
    let header = authorization(&parts.headers);
    let action = match error {
        ControlError::Denied | ControlError::TooManyGuesses { .. } if is_log_in(rule) => audit::FAILED_LOG_IN,
        ControlError::Denied if header.is_some() => audit::FAILED_TOKEN,
        ControlError::Forbidden { .. } | ControlError::Lacks { .. } => rule.action.unwrap_or(audit::READ),
        ControlError::NotFound(_) if rule.action.is_some() => rule.action.unwrap_or_default(),
        _ => return,
    };
    let (actor, app) = access::refused(control, (peer, header), &subject, error).await;
    let path = redacted(parts.uri.path());
    let attempt = audit::attempt(action, (&actor, app.as_ref()), path, peer, &parts.extensions);
    audit::refused(control, attempt, error).await;
}

/// What somebody may have access to: the first that the path names.
fn subject(rule: &Rule, segments: &Segments) -> Subject {
    let name = rule.path.split(['{', '}']).nth(1).unwrap_or_default();
    let which = segments.get(name).to_owned();
    match name {
        "app" => Subject::App(which),
        "addon" => Subject::Addon(which),
        "attachment" => Subject::Attachment(which),
        "pipeline" => Subject::Pipeline(which),
        "coupling" => Subject::Coupling(which),
        "promotion" => Subject::Promotion(which),
        _ => Subject::Box,
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
        let app = parts.extensions.remove().ok_or_else(|| ApiError::not_found(Resource::App))?;
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
        let bytes = whole(request.into_body()).await?;
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

/// Where the client reached us and who it is, for the URLs in our answers.
#[derive(Clone, Debug)]
pub(super) struct Base {
    scheme: Scheme,
    host: String,
    bearer: Bearer,
}

impl Base {
    /// Whom secret URLs are for.
    pub(super) fn bearer(&self) -> Bearer {
        self.bearer
    }

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
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bearer = *parts.extensions.get().ok_or(ControlError::Denied)?;
        let plain =
            |host: &&str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).filter(plain);
        let scheme = parts.extensions.get().copied().unwrap_or(Scheme::Http);
        Ok(Self { scheme, host: host.unwrap_or("localhost").to_owned(), bearer })
    }
}

/// `2026-11-22T17:02:45Z`
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
