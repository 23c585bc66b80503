//! A batch of lines to its receiver: syslog over TCP or TLS on a connection that stays, or a request of HTTP for each.
#![forbid(unsafe_code)]

use super::reach::Reach;
use crate::domain::drain::{Drain, DrainUrl, Way};
use crate::tls::trusted;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};
use uuid::Uuid;

/// For one batch, connection included.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(super) enum DeliverError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Certificate(io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answered with status {0}")]
    Status(hyper::StatusCode),
    #[error("it took longer than 30 seconds")]
    Slow,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

pub(super) struct Receiver {
    url: DrainUrl,
    token: String,
    reach: Reach,
    /// Of syslog.
    connection: Option<Box<dyn Stream>>,
}

impl Receiver {
    pub(super) fn new(drain: &Drain, reach: Reach) -> Self {
        Self { url: drain.url.clone(), token: drain.token.clone(), reach, connection: None }
    }

    /// What stands for the host in each line; by HTTP the token is in a header.
    pub(super) fn host(&self) -> &str {
        match self.url.way {
            Way::Syslog { .. } => &self.token,
            Way::Http { .. } => "host",
        }
    }

    /// All of it, or an error; then some of it may have arrived.
    pub(super) async fn send(&mut self, lines: &[String], id: Uuid) -> Result<(), DeliverError> {
        let sent = tokio::time::timeout(PATIENCE, async {
            match self.url.way {
                Way::Syslog { tls } => self.syslog(lines, tls).await,
                Way::Http { tls } => self.http(lines, tls, id).await,
            }
        });
        let sent = sent.await.unwrap_or(Err(DeliverError::Slow));
        if sent.is_err() {
            self.connection = None;
        }
        sent
    }

    async fn syslog(&mut self, lines: &[String], tls: bool) -> Result<(), DeliverError> {
        let stream = match self.connection.take().and_then(open) {
            Some(stream) => stream,
            None => self.connect(tls).await?,
        };
        let stream = self.connection.insert(stream);
        stream.write_all(lines.concat().as_bytes()).await?;
        Ok(stream.flush().await?)
    }

    async fn http(&self, lines: &[String], tls: bool, id: Uuid) -> Result<(), DeliverError> {
        let stream = self.connect(tls).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let host = if self.url.host.contains(':') { format!("[{}]", self.url.host) } else { self.url.host.clone() };
        let mut request = Request::post(&self.url.path)
            .header(header::HOST, format!("{host}:{}", self.url.port))
            .header(header::CONTENT_TYPE, "application/logplex-1")
            .header(header::USER_AGENT, concat!("hokku/", env!("CARGO_PKG_VERSION")))
            .header("Logplex-Msg-Count", lines.len())
            .header("Logplex-Frame-Id", id.to_string())
            .header("Logplex-Drain-Token", &self.token);
        if let Some(credentials) = &self.url.credentials {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(credentials)));
        }
        let request = request.body(Full::new(Bytes::from(lines.concat()))).map_err(io::Error::other)?;
        let mut answer = pin!(sender.send_request(request));
        // What it says beyond the status is of no interest, and ends with the connection.
        let answer = tokio::select! {
            answer = &mut answer => answer?,
            _ = connection => answer.await?,
        };
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(DeliverError::Status(status)) }
    }

    async fn connect(&self, tls: bool) -> Result<Box<dyn Stream>, DeliverError> {
        let addresses = self.reach.resolve(&self.url.host, self.url.port).await?;
        let stream = TcpStream::connect(&addresses[..]).await?;
        if !tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(self.url.host.clone()).map_err(io::Error::other)?;
        let connected = connector()?.connect(name, stream).await;
        let stream = connected.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if matches!(inner, Some(rustls::Error::InvalidCertificate(_))) {
                DeliverError::Certificate(error)
            } else {
                DeliverError::Io(error)
            }
        })?;
        Ok(Box::new(stream))
    }
}

/// The stream, unless its other side has closed it: a first write would succeed all the same. Nothing is ever said there.
fn open(mut stream: Box<dyn Stream>) -> Option<Box<dyn Stream>> {
    let ended = stream.read(&mut [0; 1]).now_or_never().is_some_and(|read| !matches!(read, Ok(1)));
    (!ended).then_some(stream)
}

/// Trusts whom this machine trusts.
fn connector() -> io::Result<TlsConnector> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(TlsConnector::from(config.clone()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(trusted::roots()?)
        .with_no_client_auth();
    Ok(TlsConnector::from(CONFIG.get_or_init(|| Arc::new(config)).clone()))
}
