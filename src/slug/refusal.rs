//! Why an archive is not unpacked.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// What is wrong with an archive, or with the tree made of it. The sentence is for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("it is not a tar archive, plain or compressed by gzip or zstd")]
    NotAnArchive,
    #[error("it is cut off")]
    Truncated,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("{0} is an absolute path")]
    Absolute(Name),
    #[error("{0} leads out of the archive's own tree")]
    Climbs(Name),
    #[error("{0} is too long a name")]
    LongName(Name),
    #[error("`{0}` is no file name")]
    NoName(Name),
    #[error("{path} lies in {parent}, which is not a directory")]
    NotADirectory { path: Name, parent: Name },
    #[error("{0} is in it twice")]
    Twice(Name),
    #[error("the link {path} leads out of the archive's own tree, to {target}")]
    LinkLeaves { path: Name, target: Name },
    #[error("the hard link {path} is to {target}, which is no file before it in the archive")]
    HardLink { path: Name, target: Name },
    #[error("{path} is a {what}; only files, directories and links are taken")]
    Special { path: Name, what: String },
    #[error("it unpacks to more than {0} MB")]
    TooLarge(u64),
    #[error("it has more than {0} files")]
    TooManyFiles(u64),
    #[error("it unpacks to more than {0} times its size")]
    Bomb(u64),
}

/// A name out of an archive, fit to be printed: text, without control characters, not endless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(String);

impl Name {
    pub(super) fn new(bytes: &[u8]) -> Self {
        const SHOWN: usize = 120;
        let text = String::from_utf8_lossy(bytes);
        let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        if text.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
