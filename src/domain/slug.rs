//! A slug: the compiled app, addressed by the digest of its archive.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::procfile::ProcessTypes;
use super::stack::Language;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

super::id! {
    /// A slug's id in the API; the archive itself is found by its [`Digest`].
    SlugId
}

/// The sha256 of a slug's `tar.zst`, as 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sha256 digest of 64 hex digits")]
pub struct DigestError(pub String);

impl Digest {
    pub fn of(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    /// Takes the bare digits or the API's form with the algorithm in front, `SHA256:…`.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = match text.split_once(':') {
            Some((algorithm, digits)) if algorithm.eq_ignore_ascii_case("sha256") => digits,
            Some(_) => return Err(DigestError(text.to_owned())),
            None => text,
        };
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(DigestError(text.to_owned()));
        }
        Ok(Self(digits.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One slug as the store keeps it. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug {
    pub id: SlugId,
    pub app: AppId,
    pub digest: Digest,
    /// Compressed size in bytes.
    pub size: u64,
    pub commit: Option<String>,
    pub commit_description: Option<String>,
    /// Of what a client has brought; the archive itself was packed anew. None when the slug was made here.
    pub checksum: Option<Digest>,
    /// `host-debian-12`, `debian-13`: the system the slug was compiled on and is tied to.
    pub stack: String,
    /// On a stack of layers, those languages that its dynos get.
    pub languages: Vec<Language>,
    pub process_types: ProcessTypes,
    /// What detection called the app, `Node.js`.
    pub buildpack_description: Option<String>,
    pub created_at: Timestamp,
}
