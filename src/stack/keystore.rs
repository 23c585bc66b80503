//! The certificates of a bundle as a Java key store, the only form in which a JVM trusts them.
//!
//! The format is the JDK's own (`JavaKeyStore`, version 2): a count, then for each certificate a tag, a name, a time and
//! its bytes, and a digest over all of it salted by the password. Every integer is big-endian.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;

/// What every JDK's trust store has; it protects nothing, the contents are public.
const PASSWORD: &str = "changeit";
/// The JDK's own salt.
const SALT: &[u8] = b"Mighty Aphrodite";

/// The store, or `None` when `bundle` (PEM) has no certificate.
pub(super) fn of_bundle(bundle: &str) -> Option<Vec<u8>> {
    let certificates = certificates(bundle);
    if certificates.is_empty() {
        return None;
    }
    let mut store = Vec::new();
    for number in [MAGIC, VERSION, u32::try_from(certificates.len()).ok()?] {
        store.extend(number.to_be_bytes());
    }
    for certificate in &certificates {
        store.extend(TRUSTED_CERTIFICATE.to_be_bytes());
        text(&mut store, &hex::encode(Sha256::digest(certificate))[..40]);
        // When it was added, in milliseconds: no time, so that the same bundle gives the same store.
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(u32::try_from(certificate.len()).ok()?.to_be_bytes());
        store.extend(certificate);
    }
    let mut hash = Sha1::new();
    PASSWORD.encode_utf16().for_each(|unit| hash.update(unit.to_be_bytes()));
    hash.update(SALT);
    hash.update(&store);
    store.extend(hash.finalize());
    Some(store)
}

fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend(text.as_bytes());
}

/// What is between the marks, each once.
fn certificates(bundle: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for part in bundle.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let Some((body, _)) = part.split_once("-----END CERTIFICATE-----") else { continue };
        let body: String = body.split_whitespace().collect();
        found.extend(STANDARD.decode(body));
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_each_certificate_of_the_bundle_once() {
        let pem = |text: &str| {
            format!("# {text}\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(text))
        };
        let store = of_bundle(&[pem("one"), pem("two"), pem("one")].concat()).unwrap();
        assert_eq!(&store[..12], [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2]);
        assert!(store.windows(3).any(|part| part == b"two"));
        // Tag, name, time, kind, length and bytes of both, then a SHA-1.
        assert_eq!(store.len(), 12 + 2 * (4 + 2 + 40 + 8 + 2 + 5 + 4 + 3) + 20);
        assert_eq!(of_bundle("nothing"), None);
    }
}
