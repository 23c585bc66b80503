//! Finding the server: by its root directory on this box, or by its address.
#![forbid(unsafe_code)]

use super::{Client, ClientError, Server};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Where an instance keeps its state when nothing else is said.
pub const DEFAULT_ROOT: &str = "/var/lib/hokku";

/// Which server is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The instance with this root, by its Unix socket.
    Root {
        root: PathBuf,
        run: PathBuf,
        /// Where its API and git listen on TCP, `127.0.0.1:5000`.
        api: Option<String>,
    },
    /// A server at `HOST:PORT`.
    Host { authority: String, tls: bool },
}

/// `ROOT/instance.json`, as far as clients need it.
#[derive(Deserialize)]
struct Record {
    run: PathBuf,
    api: Option<String>,
}

/// The place by, in this order: the flags, `HOKKU_HOST`, `HOKKU_ROOT`, [`DEFAULT_ROOT`].
///
/// # Errors
/// When the address is none, or there is no instance with that root.
pub fn find(
    root: Option<&Path>,
    host: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Place, ClientError> {
    let set = |name| environment(name).filter(|value| !value.is_empty());
    if let Some(host) = host {
        return of_address(host);
    }
    if let Some(root) = root {
        return Place::of_root(root);
    }
    if let Some(host) = set("HOKKU_HOST") {
        return of_address(&host);
    }
    Place::of_root(&set("HOKKU_ROOT").map_or_else(|| DEFAULT_ROOT.into(), PathBuf::from))
}

impl Place {
    fn of_root(root: &Path) -> Result<Self, ClientError> {
        let path = root.join("instance.json");
        let text = std::fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoInstance { root: root.to_owned() },
            _ => ClientError::Record { path: path.clone(), source },
        })?;
        let Record { run, api } =
            serde_json::from_slice(&text).map_err(|source| ClientError::BadRecord { path, source })?;
        // An unspecified address is no place to go to.
        let api = api.map(|api| api.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:"));
        Ok(Self::Root { root: root.to_owned(), run, api })
    }

    /// Where the server's API and git listen on TCP.
    pub fn authority(&self) -> Option<&str> {
        match self {
            Self::Root { api, .. } => api.as_deref(),
            Self::Host { authority, .. } => Some(authority),
        }
    }

    /// A client of that server. On the Unix socket root is known without a token.
    pub fn client(&self, token: Option<String>) -> Client {
        match self {
            Self::Root { run, api, .. } => {
                Client::new(Server::Socket(run.join("api.sock")), None).known_as(api.clone())
            }
            Self::Host { authority, tls: false } => Client::new(Server::Tcp(authority.clone()), token),
            Self::Host { authority, tls: true } => Client::new(Server::Tls(authority.clone()), token),
        }
    }

    /// Whether `other` (`HOST:PORT`) is this server; the names of the loopback interface are one.
    pub fn is_at(&self, other: &str) -> bool {
        self.authority().is_some_and(|own| same_authority(own, other))
    }
}

/// `http://HOST:PORT/`, the same with https, or `HOST:PORT` alone.
fn of_address(address: &str) -> Result<Place, ClientError> {
    let wrong = || ClientError::Address(address.to_owned());
    let (rest, tls) = match address.strip_prefix("https://") {
        Some(rest) => (rest, true),
        None => (address.strip_prefix("http://").unwrap_or(address), false),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match split(rest) {
        (host, Some(port)) => (host, port),
        (host, None) => (host, if tls { "443" } else { "80" }),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
    if host.is_empty() || rest.contains(odd) || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(Place::Host { authority: format!("{host}:{port}"), tls })
}

/// Host and port; brackets of an IPv6 address stay.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn same_authority(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let (host, port) = split(text);
        let host = host.to_ascii_lowercase();
        let loopback = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        (if loopback { "localhost".to_owned() } else { host }, port.unwrap_or("80").to_owned())
    };
    parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: Option<&str>, variables: &[(&str, &str)]) -> Result<Place, ClientError> {
        find(None, host, |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn flags_come_before_the_environment() {
        let place = |authority: &str| Place::Host { authority: authority.to_owned(), tls: false };
        assert_eq!(found(Some("http://a:1/"), &[("HOKKU_HOST", "http://b:2")]).unwrap(), place("a:1"));
        assert_eq!(found(None, &[("HOKKU_HOST", "b:2"), ("HOKKU_ROOT", "/x")]).unwrap(), place("b:2"));
        assert_eq!(found(Some("http://[::1]"), &[]).unwrap(), place("[::1]:80"));
        let secure = |authority: &str| Place::Host { authority: authority.to_owned(), tls: true };
        assert_eq!(found(Some("https://a"), &[]).unwrap(), secure("a:443"));
        assert_eq!(found(None, &[("HOKKU_HOST", "https://a:5000/")]).unwrap(), secure("a:5000"));
        let error = found(None, &[("HOKKU_HOST", ""), ("HOKKU_ROOT", "/nowhere/at-all")]).unwrap_err();
        assert_eq!(error.to_string(), "no hokku server has been started with the root /nowhere/at-all");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "http://", "http://a:b", "a/b:1", "user@host:1", "https://"] {
            assert!(of_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_root_tells_its_socket_and_its_address() {
        let root = tempfile::tempdir().unwrap();
        let record = root.path().join("instance.json");
        std::fs::write(&record, r#"{"name":"x","run":"/run/hokku/x","api":"0.0.0.0:5000","number":1}"#).unwrap();
        let place = find(Some(root.path()), None, |_| Some("http://other:1".to_owned())).unwrap();
        assert_eq!(place.client(None).server().to_string(), "/run/hokku/x/api.sock");
        assert!(place.is_at("localhost:5000") && place.is_at("127.0.0.1:5000") && !place.is_at("localhost:5001"));
        std::fs::write(&record, "{}").unwrap();
        assert!(matches!(Place::of_root(root.path()), Err(ClientError::BadRecord { .. })));
    }
}
