//! A certificate with its chain and its private key, as people bring them: PEM, understood and checked before it is kept.
#![forbid(unsafe_code)]

use super::trusted;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

/// Bytes of a chain in PEM; one certificate has one to three thousand.
const MAX_CHAIN: usize = 64 << 10;

/// Bytes of a key in PEM; one of RSA with 4096 bits has three thousand.
const MAX_KEY: usize = 16 << 10;

/// Certificates of a chain.
const MAX_LINKS: usize = 10;

/// PEM of a chain, the host's own certificate first, and of the key that belongs to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// What the host's own certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// `/C=US/O=Example/CN=www.example.com`, as clients of Heroku know it.
    pub subject: String,
    pub issuer: String,
    /// Host names, in lower case; the first label of one may be `*`.
    pub names: Vec<String>,
    pub starts_at: Timestamp,
    pub expires_at: Timestamp,
    pub self_signed: bool,
    /// Vouched for by somebody whom this machine trusts.
    pub trusted: bool,
}

/// Why a certificate can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    #[error("the {what} is longer than {limit} bytes")]
    Long { what: &'static str, limit: usize },
    #[error("the certificate chain has more than {MAX_LINKS} certificates")]
    Links,
    #[error("the certificate chain has no certificate; PEM is expected, which begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    #[error("the certificate chain is damaged: certificate {at} can't be read")]
    Certificate { at: usize },
    #[error("there is no private key; PEM is expected, which begins with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    #[error("the private key has a passphrase; take it away with: openssl pkey -in KEY -out NEW-KEY")]
    Passphrase,
    #[error("the private key can't be used; it has to be RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519")]
    Key,
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate chain is broken: {0} vouches for none of the certificates before it")]
    Stray(String),
    #[error("the certificate of {0} names no host")]
    Nameless(String),
    #[error("the certificate of {subject} has expired on {at}")]
    Expired { subject: String, at: Timestamp },
}

/// Puts the chain in order and makes sure that clients can be shown it, now.
///
/// # Errors
/// What is wrong with it.
pub fn check(chain: &str, key: &str, now: Timestamp) -> Result<(Pair, Described), PairError> {
    for (what, text, limit) in [("certificate chain", chain, MAX_CHAIN), ("private key", key, MAX_KEY)] {
        if text.len() > limit {
            return Err(PairError::Long { what, limit });
        }
    }
    let links = links(chain)?;
    let certificates = parsed(&links)?;
    let public = public_key(key)?;
    let public = SubjectPublicKeyInfo::from_der(&public).map_err(|_| PairError::Key)?.1;
    let belongs =
        |certificate: &&X509Certificate<'_>| certificate.public_key().subject_public_key == public.subject_public_key;
    let leaf = certificates.iter().position(|certificate| belongs(&certificate)).ok_or(PairError::Mismatch)?;
    let order = order(&certificates, leaf)?;
    for &at in &order {
        let (expires_at, subject) = (time(&certificates[at], at, false)?, oneline(certificates[at].subject()));
        if expires_at < now {
            return Err(PairError::Expired { subject, at: expires_at });
        }
    }
    let pem = |at: &usize| pem("CERTIFICATE", &links[*at]);
    let pair = Pair { chain: order.iter().map(pem).collect(), key: key.trim().to_owned() + "\n" };
    let described = describe(&pair.chain)?;
    Ok((pair, described))
}

/// What is said by the first certificate of a chain that is in order.
///
/// # Errors
/// When it can't be read.
pub fn describe(chain: &str) -> Result<Described, PairError> {
    let links = links(chain)?;
    let certificates = parsed(&links)?;
    let leaf = &certificates[0];
    let self_signed = leaf.issuer().as_raw() == leaf.subject().as_raw() && leaf.verify_signature(None).is_ok();
    Ok(Described {
        subject: oneline(leaf.subject()),
        issuer: oneline(leaf.issuer()),
        names: names(leaf)?,
        starts_at: time(leaf, 0, true)?,
        expires_at: time(leaf, 0, false)?,
        self_signed,
        trusted: trusted::vouched_for(&links),
    })
}

impl Described {
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| covers(name, host))
    }
}

/// Whether a certificate for `name` is one for `host`; a `*` stands for one label.
fn covers(name: &str, host: &str) -> bool {
    let below = || host.split_once('.').map(|(_, rest)| rest);
    name == host || name.strip_prefix("*.").is_some_and(|domain| below() == Some(domain))
}

impl Pair {
    /// What a server shows and signs with.
    ///
    /// # Errors
    /// When either can't be read.
    pub fn certified(&self) -> Result<CertifiedKey, PairError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| PairError::NoKey)?;
        let key = any_supported_type(&key).map_err(|_| PairError::Key)?;
        Ok(CertifiedKey::new(links(&self.chain)?, key))
    }
}

/// Each once.
fn links(chain: &str) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let mut links = Vec::new();
    for (at, link) in CertificateDer::pem_slice_iter(chain.as_bytes()).enumerate() {
        let link = link.map_err(|_| PairError::Certificate { at: at + 1 })?;
        if !links.contains(&link) {
            links.push(link);
        }
        if links.len() > MAX_LINKS {
            return Err(PairError::Links);
        }
    }
    if links.is_empty() { Err(PairError::NoCertificate) } else { Ok(links) }
}

fn parsed<'a>(links: &'a [CertificateDer<'static>]) -> Result<Vec<X509Certificate<'a>>, PairError> {
    let read = |(at, link): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(link) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PairError::Certificate { at: at + 1 }),
    };
    links.iter().enumerate().map(read).collect()
}

/// Of a private key, as DER.
fn public_key(pem: &str) -> Result<Vec<u8>, PairError> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let protected = pem.contains("ENCRYPTED");
    let key = key.map_err(|_| if protected { PairError::Passphrase } else { PairError::NoKey })?;
    let key = any_supported_type(&key).map_err(|_| if protected { PairError::Passphrase } else { PairError::Key })?;
    key.public_key().map(|key| key.to_vec()).ok_or(PairError::Key)
}

/// From the host's own certificate to the one that vouches for it, and so on; all have to be on that way.
fn order(certificates: &[X509Certificate<'_>], leaf: usize) -> Result<Vec<usize>, PairError> {
    let mut order = vec![leaf];
    while order.len() < certificates.len() {
        let last = &certificates[order[order.len() - 1]];
        let vouches = |at: &usize| {
            let other = &certificates[*at];
            !order.contains(at)
                && other.subject().as_raw() == last.issuer().as_raw()
                && last.verify_signature(Some(other.public_key())).is_ok()
        };
        let Some(next) = (0..certificates.len()).find(vouches) else {
            let stray = (0..certificates.len()).find(|at| !order.contains(at)).unwrap_or(leaf);
            return Err(PairError::Stray(oneline(certificates[stray].subject())));
        };
        order.push(next);
    }
    Ok(order)
}

fn time(certificate: &X509Certificate<'_>, at: usize, begin: bool) -> Result<Timestamp, PairError> {
    let validity = certificate.validity();
    let time = if begin { validity.not_before } else { validity.not_after };
    Timestamp::from_second(time.timestamp()).map_err(|_| PairError::Certificate { at: at + 1 })
}

/// The names that clients look at; the common name only where there are no others, as of old.
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, PairError> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None })
        .collect();
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() { Err(PairError::Nameless(oneline(certificate.subject()))) } else { Ok(names) }
}

fn oneline(name: &X509Name<'_>) -> String {
    let mut line = String::new();
    for attribute in name.iter_attributes() {
        let kind = oid2abbrev(attribute.attr_type(), oid_registry());
        let kind = kind.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        line.extend(["/", &kind, "=", attribute.as_str().unwrap_or("?")]);
    }
    line
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use time::{Duration, OffsetDateTime};

    /// A certificate and its key, by itself or vouched for.
    struct Made {
        pem: String,
        key: KeyPair,
        params: CertificateParams,
    }

    fn params(common: &str, names: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        params.not_after = params.not_before + Duration::days(90);
        params
    }

    fn made(params: CertificateParams, by: Option<&Made>) -> Made {
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, &by.key)).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Made { pem: certificate.pem(), key, params }
    }

    fn authority(name: &str, by: Option<&Made>) -> Made {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        made(params, by)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 3600).unwrap()
    }

    #[test]
    fn a_chain_is_put_in_order_and_described() {
        let root = authority("Root", None);
        let middle = authority("Middle", Some(&root));
        let own = made(params("shop", &["WWW.example.com", "*.example.org"]), Some(&middle));
        let key = own.key.serialize_pem();
        let wanted = format!("{}{}{}", own.pem, middle.pem, root.pem).replace("\r\n", "\n");
        for chain in [[&root, &middle, &own], [&own, &root, &middle], [&middle, &own, &root]] {
            let chain: String = chain.iter().map(|link| link.pem.as_str()).collect();
            let (pair, described) = check(&(chain.clone() + &own.pem), &format!("\n{key}\n\n"), now()).unwrap();
            assert_eq!(pair.chain, wanted);
            assert!(pair.certified().unwrap().keys_match().is_ok());
            assert_eq!(described.subject, "/O=Example/CN=shop");
            assert_eq!(described.issuer, "/O=Example/CN=Middle");
            assert_eq!(described.names, ["www.example.com", "*.example.org"]);
            assert_eq!(described.starts_at.as_second(), 1_700_000_000);
            assert_eq!(described.expires_at.as_second(), 1_700_000_000 + 90 * 86400);
            assert!(!described.self_signed && !described.trusted);
            assert!(!format!("{pair:?}").contains(key.lines().nth(1).unwrap()), "no key in what is printed");
        }
        let alone = made(params("alone.example.com", &[]), None);
        let (_, described) = check(&alone.pem, &alone.key.serialize_pem(), now()).unwrap();
        assert_eq!(described.names, ["alone.example.com"], "the common name, when there is no other");
        assert!(described.self_signed);
    }

    #[test]
    fn what_can_not_be_shown_is_refused_with_the_reason() {
        let root = authority("Root", None);
        let other = authority("Root", None);
        let own = made(params("shop", &["www.example.com"]), Some(&root));
        let key = own.key.serialize_pem();
        let says = |chain: &str, key: &str| check(chain, key, now()).unwrap_err();
        assert_eq!(says("", &key), PairError::NoCertificate);
        assert_eq!(says(&key, &key), PairError::NoCertificate);
        assert_eq!(says(&own.pem, ""), PairError::NoKey);
        assert_eq!(says(&own.pem, &own.pem), PairError::NoKey);
        assert_eq!(says(&own.pem, &other.key.serialize_pem()), PairError::Mismatch);
        assert_eq!(says(&format!("{}{}", own.pem, other.pem), &key), PairError::Stray("/O=Example/CN=Root".into()));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(says(&own.pem, encrypted), PairError::Passphrase);
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(says(nonsense, &key), PairError::Certificate { at: 1 });
        assert_eq!(says(&nonsense.replace("AAAA", "%%%%"), &key), PairError::Certificate { at: 1 });
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(says(&own.pem, nonsense), PairError::Key);
        assert!(matches!(says(&"x".repeat(MAX_CHAIN + 1), &key), PairError::Long { what: "certificate chain", .. }));
        assert!(matches!(says(&own.pem, &"x".repeat(MAX_KEY + 1)), PairError::Long { what: "private key", .. }));
        let many: String = (0..=MAX_LINKS).map(|_| authority("Root", None).pem).collect();
        assert_eq!(says(&many, &key), PairError::Links);
        let mut nameless = params("", &[]);
        nameless.distinguished_name = rcgen::DistinguishedName::new();
        let nameless = made(nameless, None);
        assert_eq!(says(&nameless.pem, &nameless.key.serialize_pem()), PairError::Nameless(String::new()));
        let late = Timestamp::from_second(1_700_000_000 + 91 * 86400).unwrap();
        assert!(matches!(check(&own.pem, &key, late), Err(PairError::Expired { .. })));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(covers("www.example.com", "www.example.com") && covers("*.example.com", "www.example.com"));
        assert!(covers("*.example.com", "*.example.com"));
        for host in ["example.com", "a.b.example.com", "www.example.org", "com"] {
            assert!(!covers("*.example.com", host), "{host}");
        }
        assert!(!covers("www.example.com", "*.example.com"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_in_words_or_fits(at in 0..2000_usize, byte: u8, text in "\\PC{0,200}") {
            let own = made(params("shop", &["www.example.com"]), None);
            let key = own.key.serialize_pem();
            let _ = check(&text, &key, now());
            let _ = check(&own.pem, &text, now());
            for (chain, key) in [(damaged(&own.pem, at, byte), key.clone()), (own.pem.clone(), damaged(&key, at, byte))] {
                if let Ok((pair, _)) = check(&chain, &key, now()) {
                    prop_assert!(pair.certified().is_ok());
                }
            }
        }
    }

    fn damaged(text: &str, at: usize, byte: u8) -> String {
        let mut bytes = text.as_bytes().to_owned();
        let at = at % bytes.len();
        bytes[at] = byte;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
