//! HTTP to a hokku server, for the CLI and the git hook: the Platform API over the server's Unix socket or TCP.
//!
//! Every call opens a connection of its own: a command makes one to three of them, and the end of a streaming call is
//! then the end of its connection, which is how the server learns that its reader has gone.
//!
//! A URL in an answer (`put_url`, `output_stream_url`, `attach_url` …) belongs to the server that was asked, so only
//! its path is ever used and a token never travels to another host.
#![forbid(unsafe_code)]

mod builds;
mod error;
mod place;
mod secure;

pub use builds::{Build, BuildRequest};
pub use error::{ClientError, Refusal};
pub use place::{DEFAULT_ROOT, Place, find};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::upgrade::Upgraded;
pub use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// How long a TCP connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// An error's body is a line of JSON; whatever is longer is none.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that nothing is in.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose pieces come from elsewhere, for example a thread that packs a directory. It ends when the sender is
/// dropped; an `Err` breaks the request off.
pub fn pieces() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(8);
    let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let frames = futures_util::StreamExt::map(frames, |piece: io::Result<Bytes>| piece.map(Frame::data));
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// The server's Unix socket, for root on the same box.
    Socket(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
    /// The same over TLS.
    Tls(String),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
        }
    }
}

/// What the CLI and the hook talk to a server with.
#[derive(Clone)]
pub struct Client {
    server: Server,
    /// Where the server of a socket listens on TCP.
    authority: Option<String>,
    /// The header by which it is known whose client it is.
    authorization: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of `server`; the token goes into `Authorization: Bearer`. Root needs none on the Unix socket.
    pub fn new(server: Server, token: Option<String>) -> Self {
        Self { server, authority: None, authorization: token.map(|token| format!("Bearer {token}")) }
    }

    /// Known by mail address and password, with which only a token can be had.
    #[must_use]
    pub fn with_password(self, email: &str, password: &str) -> Self {
        let pair = STANDARD.encode(format!("{email}:{password}"));
        Self { authorization: Some(format!("Basic {pair}")), ..self }
    }

    /// The server of the socket is known elsewhere as `HOST:PORT`.
    #[must_use]
    pub fn known_as(self, authority: Option<String>) -> Self {
        Self { authority, ..self }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// # Errors
    /// When the server can't be reached, refuses, or answers with something else than a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Call::new(Method::GET, path)).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        self.json(Call::new(Method::POST, path).json(body)).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        self.json(Call::new(Method::PATCH, path).json(body)).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        self.json(Call::new(Method::PUT, path).json(body)).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Call::new(Method::DELETE, path)).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn delete_with<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        self.json(Call::new(Method::DELETE, path).json(body)).await
    }

    /// All rows of a list, page after page.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let (mut rows, mut next) = self.page(path, None).await?;
        while let Some(range) = next {
            let (more, after) = self.page(path, Some(&range)).await?;
            rows.extend(more);
            next = after;
        }
        Ok(rows)
    }

    /// One page of a list, and the range of the page after it. `range` as in `version ..; order=desc,max=15`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn page(&self, path: &str, range: Option<&str>) -> Result<(Vec<Value>, Option<String>), ClientError> {
        let mut call = Call::new(Method::GET, path);
        if let Some(range) = range {
            call = call.header(header::RANGE, range);
        }
        let response = self.send(call).await?;
        let next = (response.status() == StatusCode::PARTIAL_CONTENT)
            .then(|| response.headers().get("next-range").and_then(|value| value.to_str().ok()).map(str::to_owned))
            .flatten();
        Ok((Self::parse(response).await?, next))
    }

    /// A call whose answer comes as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        Self::parse(self.send(call).await?).await
    }

    /// A `GET` whose answer is read while it is being written.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn download(&self, url: &str) -> Result<Download, ClientError> {
        Ok(Download(self.send(Call::new(Method::GET, url).header(header::ACCEPT, "text/plain")).await?.into_body()))
    }

    /// Sends any call; answers other than 2xx are errors.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn send(&self, call: Call) -> Result<Response, ClientError> {
        let request = self.request(call)?;
        let response = self.connect().await?.send_request(request).await.map_err(ClientError::Broken)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Turns a `GET` into a two-way stream of bytes.
    ///
    /// # Errors
    /// When the server can't be reached, refuses, or speaks no such `protocol`.
    pub async fn upgrade(&self, url: &str, protocol: &'static str) -> Result<TokioIo<Upgraded>, ClientError> {
        let call = Call::new(Method::GET, url).header(header::CONNECTION, "Upgrade").header(header::UPGRADE, protocol);
        let request = self.request(call)?;
        let response = self.connect().await?.send_request(request).await.map_err(ClientError::Broken)?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                hyper::upgrade::on(response).await.map(TokioIo::new).map_err(ClientError::Broken)
            }
            status if status.is_success() => Err(ClientError::NoUpgrade { protocol }),
            _ => Err(refusal(response).await),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let unreachable = |source| ClientError::unreachable(self.server.clone(), source);
        match &self.server {
            Server::Socket(path) => handshake(UnixStream::connect(path).await.map_err(unreachable)?).await,
            Server::Tcp(authority) | Server::Tls(authority) => {
                let stream = tokio::time::timeout(CONNECT, TcpStream::connect(authority))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(unreachable)?;
                // Keys typed into `hokku run` should not wait for the acknowledgement of the ones before.
                let _ = stream.set_nodelay(true);
                if matches!(self.server, Server::Tcp(_)) {
                    return handshake(stream).await;
                }
                let stream = tokio::time::timeout(CONNECT, secure::stream(stream, authority)).await;
                handshake(stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?).await
            }
        }
    }

    fn request(&self, call: Call) -> Result<hyper::Request<Body>, ClientError> {
        let mut request = hyper::Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = path_of(&call.url).parse().map_err(|_| ClientError::Url(call.url.clone()))?;
        let headers = request.headers_mut();
        let host = match &self.server {
            // The server makes the URLs in its answers of this.
            Server::Socket(_) => self.authority.as_deref().unwrap_or("localhost"),
            Server::Tcp(authority) | Server::Tls(authority) => authority,
        };
        headers.insert(header::HOST, value(host)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.heroku+json; version=3"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("hokku/", env!("CARGO_PKG_VERSION"))));
        if let Some(text) = &self.authorization {
            let mut secret = value(text)?;
            secret.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, secret);
        }
        for (name, text) in call.headers {
            headers.insert(name, value(&text)?);
        }
        Ok(request)
    }

    async fn parse<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
        let bytes = response.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(ClientError::Answer)
    }
}

/// An answer that came with a 2xx status.
pub type Response = hyper::Response<Incoming>;

/// One request to be sent.
#[derive(Debug)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(HeaderName, String)>,
    body: Body,
}

impl Call {
    /// `url` is a path, or a URL from one of the server's answers.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: empty() }
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, text: impl Into<String>) -> Self {
        self.headers.push((name, text.into()));
        self
    }

    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = whole(body.to_string());
        self.header(header::CONTENT_TYPE, "application/json")
    }

    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// An answer read while it is being written.
#[derive(Debug)]
pub struct Download(Incoming);

impl Download {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(bytes) = frame.map_err(ClientError::Broken)?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// `text` as one segment of a path, so that no app name, however odd, asks for another resource.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || (byte == b'.' && text.len() > 2) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Path and query of a URL; a path is its own.
fn path_of(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
    // It fails only when the request or the answer's body fails too, and those tell.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR_BODY).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    ClientError::Refused(Box::new(Refusal::parse(status, &body)))
}

fn value(text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::Header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_url_is_used() {
        assert_eq!(path_of("http://other.example:1/streams/a?b=c"), "/streams/a?b=c");
        assert_eq!(path_of("http://other.example"), "/");
        assert_eq!(path_of("/apps"), "/apps");
    }

    #[test]
    fn an_odd_name_stays_one_segment() {
        assert_eq!(segment("my-app.1_x"), "my-app.1_x");
        assert_eq!(segment("../x y?"), "..%2Fx%20y%3F");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
