//! Certificates: those of the instance's own authority, and those that users bring ([`Pair`]).
//!
//! ROOT has `ca.pem`, for everybody who is to trust this server, and `ca.key`, for root only; both are made at the first
//! start and stay. The certificates that API and router show in its name are made anew at each start, their keys are
//! never on disk.
#![forbid(unsafe_code)]

mod pair;
pub mod trusted;

pub use pair::{Described, Pair, PairError, check, describe};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Below ROOT: what clients are to trust.
pub const AUTHORITY: &str = "ca.pem";

/// Below ROOT.
const KEY: &str = "ca.key";

/// How long the authority lasts; nobody is there to renew what clients have copied.
const YEARS: i64 = 20;

/// Clocks may differ by so much.
const BEFORE: Duration = Duration::days(2);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not the key of a certificate authority; remove it and ca.pem to have both made anew", path.display())]
    Key { path: PathBuf, source: rcgen::Error },
    #[error("can't make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("can't use the certificate")]
    Use(#[from] rustls::Error),
}

/// Whatever speaks TLS with clients of the API as one of `names`: host names and IP addresses.
///
/// # Errors
/// When ROOT's files can't be read or made, or a name is none.
pub fn acceptor(root: &Path, names: &[String]) -> Result<TlsAcceptor, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = certificate(&authority(root)?, &key, names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificate(
    authority: &Issuer<'static, KeyPair>,
    key: &KeyPair,
    names: &[String],
) -> Result<rcgen::Certificate, TlsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "hokku");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = lifetime();
    Ok(params.signed_by(key, authority)?)
}

/// What the router shows for apps' names below the instance's domain, in the name of the instance's own authority.
pub struct OwnNames {
    authority: Issuer<'static, KeyPair>,
    key: KeyPair,
    domain: String,
    /// By name.
    made: HashMap<String, Pair>,
}

impl fmt::Debug for OwnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnNames").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl OwnNames {
    /// # Errors
    /// When ROOT's files can't be read or made.
    pub fn open(root: &Path, domain: &str) -> Result<Self, TlsError> {
        // A certificate can't name what DNS does not know in this form.
        let domain = if domain.is_ascii() { domain } else { "localhost" }.to_owned();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { authority: authority(root)?, key, domain, made: HashMap::new() })
    }

    /// For the domain and all names below it.
    ///
    /// # Errors
    /// When the domain is no name.
    pub fn all(&mut self) -> Result<Pair, TlsError> {
        self.make(&[self.domain.clone(), format!("*.{}", self.domain)])
    }

    /// For one name, where clients don't take the wildcard for it: they want two labels behind a `*`.
    ///
    /// # Errors
    /// When it is no name.
    pub fn one(&mut self, host: &str) -> Result<Option<Pair>, TlsError> {
        if self.domain.contains('.') || !host.is_ascii() {
            return Ok(None);
        }
        self.make(&[host.to_owned()]).map(Some)
    }

    fn make(&mut self, names: &[String]) -> Result<Pair, TlsError> {
        if let Some(pair) = self.made.get(&names[0]) {
            return Ok(pair.clone());
        }
        let chain = certificate(&self.authority, &self.key, names)?.pem();
        let pair = Pair { chain, key: self.key.serialize_pem() };
        self.made.insert(names[0].clone(), pair.clone());
        Ok(pair)
    }
}

fn lifetime() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BEFORE, now + Duration::days(365 * YEARS))
}

/// ROOT's authority. Without its key, `ca.pem` is of no use and is made anew with it.
fn authority(root: &Path) -> Result<Issuer<'static, KeyPair>, TlsError> {
    let (path, shown) = (root.join(KEY), root.join(AUTHORITY));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Io { path, source }
    };
    let (key, made) = match fs::read_to_string(&path) {
        Ok(pem) => (KeyPair::from_pem(&pem).map_err(|source| TlsError::Key { path, source })?, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            write(&path, key.serialize_pem().as_bytes(), 0o600).map_err(io(&path))?;
            (key, true)
        }
        Err(error) => return Err(io(&path)(error)),
    };
    let params = authority_params(&key);
    if made || !shown.exists() {
        write(&shown, params.self_signed(&key)?.pem().as_bytes(), 0o644).map_err(io(&shown))?;
    }
    Ok(Issuer::new(params, key))
}

/// Everything but the dates follows from the key, so that what it signs belongs to the `ca.pem` there is.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mark = hex::encode(&Sha256::digest(key.public_key_raw())[..4]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("hokku instance {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = lifetime();
    params
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let half_made = path.with_extension("new");
    let _ = fs::remove_file(&half_made); // a mode holds for new files only
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&half_made)?;
    file.write_all(bytes)?;
    // Whatever the umask.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&half_made, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    fn trusting(root: &Path) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root.join(AUTHORITY)).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// Whether a client that trusts `root` gets a word through to a server of that acceptor as `name`.
    async fn speaks(root: &Path, acceptor: &TlsAcceptor, name: &str) -> bool {
        let (client, server) = tokio::io::duplex(64 << 10);
        let answer = async {
            let mut stream = acceptor.accept(server).await?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).await?;
            stream.write_all(&word).await?;
            stream.flush().await
        };
        let ask = async {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut stream = trusting(root).connect(name, client).await?;
            stream.write_all(b"word").await?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).await
        };
        let (answered, asked) = tokio::join!(answer, ask);
        answered.is_ok() && asked.is_ok()
    }

    #[tokio::test]
    async fn the_authority_stays_and_vouches_for_the_names_only() {
        let root = tempfile::tempdir().unwrap();
        let names = ["localhost", "127.0.0.1", "::1", "apps.example.com"].map(str::to_owned);
        let first = acceptor(root.path(), &names).unwrap();
        let shown = fs::read(root.path().join(AUTHORITY)).unwrap();
        let second = acceptor(root.path(), &names).unwrap();
        assert_eq!(fs::read(root.path().join(AUTHORITY)).unwrap(), shown, "clients have copied it");
        for name in &names {
            assert!(speaks(root.path(), &first, name).await && speaks(root.path(), &second, name).await, "{name}");
        }
        assert!(!speaks(root.path(), &first, "elsewhere.example.com").await);
        let other = tempfile::tempdir().unwrap();
        acceptor(other.path(), &names).unwrap();
        assert!(!speaks(other.path(), &first, "localhost").await, "another instance's authority");
        let mode = |name| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode(AUTHORITY)), (0o600, 0o644));
    }

    #[test]
    fn a_broken_key_is_told_and_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(KEY), "nonsense").unwrap();
        assert!(matches!(acceptor(root.path(), &["localhost".to_owned()]), Err(TlsError::Key { .. })));
        assert_eq!(fs::read(root.path().join(KEY)).unwrap(), b"nonsense");
    }
}
