//! Whom this machine trusts: its list of certificate authorities.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;

/// Where Debian, and others, keep it; and what overrides that.
const FILES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const VARIABLE: &str = "SSL_CERT_FILE";

/// The list as it was at first use.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn roots() -> io::Result<Arc<RootCertStore>> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let told = std::env::var(VARIABLE).ok();
    let mut files = told.iter().map(String::as_str).chain(FILES);
    let file = files.find(|file| Path::new(file).exists());
    let file = file.ok_or_else(|| io::Error::other("this machine has no list of certificate authorities"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
        // One that rustls does not understand vouches for nobody.
        let _ = roots.add(certificate.map_err(io::Error::other)?);
    }
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

/// Whether one of them stands behind the first of `chain`, now and whatever its name.
pub(super) fn vouched_for(chain: &[CertificateDer<'_>]) -> bool {
    let Some((own, others)) = chain.split_first() else { return false };
    let (Ok(roots), Ok(own)) = (roots(), ParsedCertificate::try_from(own)) else { return false };
    let algorithms = default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&own, &roots, others, UnixTime::now(), algorithms).is_ok()
}
