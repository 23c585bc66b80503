//! TLS of the router's: which certificate a client is shown, and the handshake within bounds.
//!
//! The server sends all certificates at once, whenever one changes ([`Certificates`]); they are kept in memory only. Before
//! the first of them nobody is accepted: connections wait in the socket's queue.
#![forbid(unsafe_code)]

use super::socket::Socket;
use super::worker::{self, Open, Worker};
use crate::domain::hostname;
use crate::tls::{Pair, PairError};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// All that the router shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// For clients that name no host, or one that is not below.
    pub own: Pair,
    /// Each with the lower-case host names that it is for; `*.example.com` stands for all below that are not there.
    pub others: Vec<(Vec<String>, Pair)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("the router's own certificate can't be used: {0}")]
    Own(#[from] PairError),
    #[error(transparent)]
    Config(#[from] rustls::Error),
}

/// How connections of TLS are taken, until there is another.
pub(super) type Current = watch::Receiver<Option<Arc<ServerConfig>>>;

/// # Errors
/// When the instance's own certificate can't be used; another that can't is left out.
pub(super) fn config(certificates: &Certificates) -> Result<Arc<ServerConfig>, TlsError> {
    let own = Arc::new(certificates.own.certified()?);
    let mut hosts = HashMap::new();
    for (names, pair) in &certificates.others {
        match pair.certified() {
            Ok(certified) => {
                let certified = Arc::new(certified);
                hosts.extend(names.iter().map(|name| (name.clone(), Arc::clone(&certified))));
            }
            Err(error) => tracing::error!(?names, "their certificate can't be used: {error}"),
        }
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown { own, hosts }));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Shown {
    own: Arc<CertifiedKey>,
    hosts: HashMap<String, Arc<CertifiedKey>>,
}

impl Shown {
    fn to(&self, host: &str) -> &Arc<CertifiedKey> {
        let host = host.to_ascii_lowercase();
        let below = || hostname::wildcards(&host).find_map(|name| self.hosts.get(&name));
        self.hosts.get(&host).or_else(below).unwrap_or(&self.own)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.own, |host| self.to(host))))
    }
}

/// Takes connections until this router is to take no more. When as many handshakes are under way as may be, the oldest ends for the newest: one that
/// is meant well takes milliseconds.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener, mut current: Current) {
    tokio::select! {
        () = worker.retired.cancelled() => return,
        first = current.wait_for(Option::is_some) => match first {
            Ok(_) => {}
            Err(_) => return,
        },
    }
    let mut under_way = VecDeque::<AbortHandle>::new();
    loop {
        let Some((stream, peer)) = worker::next(&worker, &listener).await else { return };
        let Some(config) = current.borrow().clone() else { return };
        if under_way.len() >= worker.settings.handshakes {
            under_way.retain(|handshake| !handshake.is_finished());
            if under_way.len() >= worker.settings.handshakes
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.abort();
            }
        }
        let open = worker.open();
        let handshake = tokio::task::spawn_local(handshake(Rc::clone(&worker), open, config, stream, peer));
        under_way.push_back(handshake.abort_handle());
    }
}

async fn handshake(worker: Rc<Worker>, open: Open, config: Arc<ServerConfig>, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let stream = Socket::new(stream, worker.settings.idle);
    let shaken = tokio::time::timeout(worker.settings.handshake, TlsAcceptor::from(config).accept(stream)).await;
    // Otherwise the client has been told by an alert, or is too slow.
    if let Ok(Ok(stream)) = shaken {
        tokio::task::spawn_local(worker::serve(worker, stream, worker::Client::new(open, peer, local, true)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::OwnNames;

    #[test]
    fn the_nearest_certificate_is_shown() {
        let root = tempfile::tempdir().unwrap();
        let mut names = OwnNames::open(root.path(), "localhost").unwrap();
        let mut pair = |host: &str| names.one(host).unwrap().unwrap();
        let (exact, star) = (pair("www.example.com"), pair("example.com"));
        let broken = Pair { chain: "nonsense".into(), key: String::new() };
        let certificates = Certificates {
            own: pair("own"),
            others: vec![
                (vec!["www.example.com".into()], exact.clone()),
                (vec!["*.example.com".into(), "example.org".into()], star.clone()),
                (vec!["broken.example.org".into()], broken.clone()),
            ],
        };
        assert!(config(&certificates).is_ok(), "a broken one keeps nobody else from being served");
        assert!(config(&Certificates { own: broken, ..certificates.clone() }).is_err());
        let certified = |pair: &Pair| Arc::new(pair.certified().unwrap());
        let hosts = certificates.others[..2].iter();
        let hosts = hosts.flat_map(|(names, pair)| names.iter().map(|name| (name.clone(), certified(pair)))).collect();
        let shown = Shown { own: certified(&certificates.own), hosts };
        for (host, expected) in [
            ("www.example.com", &exact),
            ("WWW.Example.com", &exact),
            ("api.example.com", &star),
            ("example.org", &star),
            ("example.com", &certificates.own),
            ("elsewhere.test", &certificates.own),
        ] {
            assert_eq!(shown.to(host).cert, certified(expected).cert, "{host}");
        }
    }
}
