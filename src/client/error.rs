//! What can go wrong between a client and its server.
#![forbid(unsafe_code)]

use super::Server;
use hyper::StatusCode;
use serde::Deserialize;
use std::io;
use std::path::PathBuf;
use tokio_rustls::rustls;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no hokku server has been started with the root {}", root.display())]
    NoInstance { root: PathBuf },
    #[error("{} can't be read", path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error("{} is not a record of a hokku instance", path.display())]
    BadRecord { path: PathBuf, source: serde_json::Error },
    #[error("{0:?} is not the address of a server; it looks like http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    #[error("no hokku server is listening at {server}")]
    NotListening { server: Server, source: io::Error },
    #[error("permission denied at {server}")]
    Denied { server: Server, source: io::Error },
    #[error("the server at {server} can't be reached")]
    Unreachable { server: Server, source: io::Error },
    #[error("the server at {server} shows a certificate that is not trusted")]
    Untrusted { server: Server, source: io::Error },
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("the connection to the server broke off")]
    Broken(#[source] hyper::Error),
    #[error("the server's answer was not understood")]
    Answer(#[source] serde_json::Error),
    #[error("the server does not speak {protocol}")]
    NoUpgrade { protocol: &'static str },
    #[error("{0:?} is not a URL")]
    Url(String),
    /// Not shown in full, as it may be a token.
    #[error("a header would hold characters that HTTP does not allow")]
    Header,
}

impl ClientError {
    pub(super) fn unreachable(server: Server, source: io::Error) -> Self {
        let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return Self::Untrusted { server, source };
        }
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotListening { server, source },
            io::ErrorKind::PermissionDenied => Self::Denied { server, source },
            _ => Self::Unreachable { server, source },
        }
    }

    /// The status and what the server said, when it did answer.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// An error as the API tells it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub status: StatusCode,
    /// `not_found`, `invalid_params` …
    pub id: String,
    pub message: String,
    /// What was not found: `app`, `dyno` …
    pub resource: Option<String>,
    pub url: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    id: String,
    message: String,
    resource: Option<String>,
    url: Option<String>,
}

impl Refusal {
    pub(super) fn parse(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { id, message, resource, url }) => Self { status, id, message, resource, url },
            Err(_) => Self {
                status,
                id: String::new(),
                message: format!("the server answered with status {status}"),
                resource: None,
                url: None,
            },
        }
    }
}
