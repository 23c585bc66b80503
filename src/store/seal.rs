//! Config vars at rest: XChaCha20-Poly1305 with the instance's key, bound to the release they belong to.
//!
//! A sealed value is `[1][nonce, 24 bytes][ciphertext and tag]`; the first byte leaves room for another way later.
#![forbid(unsafe_code)]

use super::StoreError;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use std::fmt;
use uuid::Uuid;

pub(super) const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const VERSION: u8 = 1;

pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
    /// Another key for the secrets of URLs, so that none of them says anything about the first.
    url_key: [u8; 32],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let url_key = Sha256::new().chain_update(b"hokku url secrets").chain_update(key).finalize().into();
        Self { cipher: XChaCha20Poly1305::new(key.into()), url_key }
    }

    /// `context` is not kept but must be the same to open.
    pub(super) fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(StoreError::Random)?;
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: context })
            .expect("only messages of more than 256 GB can't be sealed");
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// `None` when it was sealed with another key or for another context, or has been changed.
    pub(super) fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (&VERSION, rest) = sealed.split_first()? else { return None };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: context }).ok()
    }

    pub(super) fn secret(&self, purpose: &str, id: Uuid) -> String {
        let digest = Sha256::new().chain_update(self.url_key).chain_update(id).chain_update(purpose).finalize();
        hex::encode(&digest[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_context_and_bytes() {
        let (seal, other) = (Seal::new(&[1; 32]), Seal::new(&[2; 32]));
        let sealed = seal.seal(b"secret", b"release 1").unwrap();
        assert_eq!(seal.open(&sealed, b"release 1").unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_ne!(seal.seal(b"secret", b"release 1").unwrap(), sealed, "a nonce is used once");
        assert_eq!(seal.open(&sealed, b"release 2"), None);
        assert_eq!(other.open(&sealed, b"release 1"), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(&changed, b"release 1"), None, "byte {at}");
        }
        assert_eq!(seal.open(&[], b""), None);
    }

    #[test]
    fn url_secrets_differ_by_key_purpose_and_id() {
        let (seal, other) = (Seal::new(&[1; 32]), Seal::new(&[2; 32]));
        let id = Uuid::from_u128(7);
        let secret = seal.secret("attach", id);
        assert_eq!((secret.len(), seal.secret("attach", id)), (32, secret.clone()));
        for else_ in [other.secret("attach", id), seal.secret("build", id), seal.secret("attach", Uuid::nil())] {
            assert_ne!(else_, secret);
        }
    }
}
