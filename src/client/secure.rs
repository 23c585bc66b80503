//! TLS to a server: trusted is whom this machine trusts, and the authority in the file that `HOKKU_CA` names.
#![forbid(unsafe_code)]

use crate::tls::trusted;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A server's `ROOT/ca.pem`, or a copy of it.
const VARIABLE: &str = "HOKKU_CA";

/// `stream`, on which the server has shown that it is `HOST:PORT`.
pub(super) async fn stream(stream: TcpStream, authority: &str) -> io::Result<TlsStream<TcpStream>> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots()?)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn roots() -> io::Result<RootCertStore> {
    let Some(file) = std::env::var_os(VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from) else {
        return trusted::roots().map(|roots| RootCertStore::clone(&roots));
    };
    // A machine without a list of its own trusts this one.
    let mut roots = trusted::roots().map_or_else(|_| RootCertStore::empty(), |roots| RootCertStore::clone(&roots));
    let unreadable = |error| io::Error::other(format!("{VARIABLE}={}: {error}", file.display()));
    for certificate in CertificateDer::pem_file_iter(&file).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(io::Error::other)?;
    }
    Ok(roots)
}
