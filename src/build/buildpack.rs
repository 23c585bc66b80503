//! Which buildpack a name or URL means, and the packs that are part of the binary.
#![forbid(unsafe_code)]

use include_dir::{Dir, include_dir};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/buildpacks");

/// Our own packs in Heroku's order of detection: the folder's name and what people call the language.
pub const OWN: [(&str, &str); 9] = [
    ("ruby", "Ruby"),
    ("nodejs", "Node.js"),
    ("clojure", "Clojure"),
    ("python", "Python"),
    ("java", "Java"),
    ("gradle", "Gradle"),
    ("scala", "Scala"),
    ("php", "PHP"),
    ("go", "Go"),
];

/// Ours that are used only when they are named.
const BY_NAME: [&str; 1] = ["jvm"];

/// What is copied into each of our packs.
const SHARED: [&str; 5] = ["lib/output.sh", "lib/memory.sh", "lib/runtime.sh", "lib/jvm.sh", "lib/jvm-profile.sh"];

/// A buildpack as an app's owner chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buildpack {
    /// As it was written; the API shows this.
    pub written: String,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of ours, by folder.
    Own(&'static str),
    /// Cloned inside the build dyno; a branch, tag or commit.
    Git { url: String, reference: Option<String> },
    /// A tar archive, fetched inside the build dyno.
    Archive { url: String },
    /// A directory of this machine.
    Local(PathBuf),
    /// `bin/detect`, `bin/compile` and `bin/release` of the app itself.
    Inline,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildpackError {
    #[error("{0:?} is not a buildpack: give the URL of a git repository or a .tgz, a directory, or one of {list}", list = names())]
    Unknown(String),
    #[error("there is no buildpack {0} here yet; give its git URL, or one of {list}", list = names())]
    Absent(String),
    #[error("{0:?} is not the name of a branch, tag or commit")]
    Reference(String),
}

fn names() -> String {
    folders().map(|name| format!("heroku/{name}")).collect::<Vec<_>>().join(", ")
}

/// The folders of all of ours.
pub fn folders() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(folder, _)| *folder).chain(BY_NAME)
}

/// What people call the language of one of ours.
pub fn language(folder: &str) -> &'static str {
    OWN.iter().find(|(own, _)| *own == folder).map_or("JVM", |(_, language)| language)
}

/// Which apps one of ours is for, in the words of its `bin/detect`.
pub fn when_it_fits(folder: &str) -> String {
    let detect = EMBEDDED.get_file(format!("{folder}/bin/detect")).and_then(|file| file.contents_utf8());
    let comment = detect.unwrap_or_default().lines().skip(1).map_while(|line| line.strip_prefix("# "));
    comment.collect::<Vec<_>>().join(" ")
}

const ARCHIVES: [&str; 6] = [".tgz", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz", ".tar"];
const GIT: [&str; 5] = ["https://", "http://", "git://", "ssh://", "git@"];

impl Buildpack {
    /// # Errors
    /// When the text names no buildpack.
    pub fn parse(text: &str) -> Result<Self, BuildpackError> {
        let written = text.trim();
        let unknown = || BuildpackError::Unknown(text.to_owned());
        if written.is_empty() || written.chars().any(|c| c.is_control() || c == ' ') || written.len() > 2000 {
            return Err(unknown());
        }
        let name = written.strip_prefix("urn:buildpack:").unwrap_or(written);
        let source = match by_name(name) {
            Some(found) => found?,
            None => by_place(name)?.ok_or_else(unknown)?,
        };
        Ok(Self { written: written.to_owned(), source })
    }

    /// One of our own, as it is written when detection chose it.
    pub fn own(folder: &'static str) -> Self {
        Self { written: format!("heroku/{folder}"), source: Source::Own(folder) }
    }

    /// The app's own scripts.
    pub fn inline() -> Self {
        Self { written: "inline".to_owned(), source: Source::Inline }
    }

    pub fn is_own(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }
}

impl fmt::Display for Buildpack {
    /// Our own by Heroku's name, others as written but without the credentials of a URL: build output is kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Source::Own(folder) = self.source {
            return write!(f, "heroku/{folder}");
        }
        let credentials = |rest: &str| rest.split('/').next()?.rfind('@');
        match self.written.split_once("://") {
            Some((scheme, rest)) if let Some(end) = credentials(rest) => write!(f, "{scheme}://{}", &rest[end + 1..]),
            _ => f.write_str(&self.written),
        }
    }
}

/// `nodejs`, `heroku/nodejs`, `inline`; `None` for what looks like a place.
fn by_name(name: &str) -> Option<Result<Source, BuildpackError>> {
    let (owner, bare) = name.split_once('/').unwrap_or(("heroku", name));
    let word = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !word || !["heroku", "heroku-community", "hokku"].contains(&owner) {
        return None;
    }
    if bare == "inline" {
        return Some(Ok(Source::Inline));
    }
    let own = folders().find(|folder| *folder == bare && owner != "heroku-community");
    Some(own.map(Source::Own).ok_or_else(|| BuildpackError::Absent(name.to_owned())))
}

fn by_place(place: &str) -> Result<Option<Source>, BuildpackError> {
    if let Some(path) = place.strip_prefix("file://").or(place.starts_with('/').then_some(place)) {
        return Ok(path.starts_with('/').then(|| Source::Local(PathBuf::from(path))));
    }
    if !GIT.iter().any(|scheme| place.starts_with(scheme)) {
        return Ok(None);
    }
    let (url, reference) = match place.split_once('#') {
        Some((url, reference)) if !reference.is_empty() => (url, Some(reference)),
        Some((url, _)) => (url, None),
        None => (place, None),
    };
    if ARCHIVES.iter().any(|end| url.ends_with(end)) && url.starts_with("http") {
        return Ok(Some(Source::Archive { url: url.to_owned() }));
    }
    if let Some(reference) = reference.filter(|r| r.starts_with('-') || r.contains("..")) {
        return Err(BuildpackError::Reference(reference.to_owned()));
    }
    Ok(Some(Source::Git { url: url.to_owned(), reference: reference.map(str::to_owned) }))
}

/// The script that a build dyno runs.
pub fn driver() -> &'static [u8] {
    EMBEDDED.get_file("lib/driver.sh").expect("driver.sh is part of the binary").contents()
}

/// Writes one of our own packs to `dest`, a fresh directory.
///
/// # Errors
/// When the directory can't be written.
pub fn write_own(folder: &str, dest: &Path) -> io::Result<()> {
    let pack = EMBEDDED.get_dir(folder).ok_or(io::ErrorKind::NotFound)?;
    write_dir(pack, folder, dest)?;
    std::fs::create_dir_all(dest.join("lib"))?;
    for shared in SHARED {
        let file = EMBEDDED.get_file(shared).ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(dest.join(shared), file.contents())?;
    }
    Ok(())
}

fn write_dir(dir: &Dir<'_>, prefix: &str, dest: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dest)?;
    for file in dir.files() {
        let path = dest.join(file.path().strip_prefix(prefix).unwrap_or(file.path()));
        std::fs::write(&path, file.contents())?;
        // include_dir does not keep modes.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    for inner in dir.dirs() {
        let path = dest.join(inner.path().strip_prefix(prefix).unwrap_or(inner.path()));
        std::fs::create_dir_all(&path)?;
        write_dir(inner, prefix, dest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Buildpack::parse(text).unwrap().source
    }

    fn git(url: &str, reference: Option<&str>) -> Source {
        Source::Git { url: url.into(), reference: reference.map(str::to_owned) }
    }

    #[test]
    fn names_and_places_are_told_apart() {
        for name in ["nodejs", "heroku/nodejs", "urn:buildpack:heroku/nodejs"] {
            assert_eq!(source(name), Source::Own("nodejs"), "{name}");
        }
        assert_eq!(source("inline"), Source::Inline);
        assert_eq!(source("https://example.org/a/pack.git#v1"), git("https://example.org/a/pack.git", Some("v1")));
        assert_eq!(source("https://example.org/a/pack#"), git("https://example.org/a/pack", None));
        assert_eq!(source("git@example.org:a/pack.git"), git("git@example.org:a/pack.git", None));
        assert_eq!(source("https://example.org/p.tgz"), Source::Archive { url: "https://example.org/p.tgz".into() });
        assert_eq!(source("file:///srv/pack"), Source::Local("/srv/pack".into()));
        assert_eq!(source("/srv/pack"), Source::Local("/srv/pack".into()));
    }

    #[test]
    fn what_names_no_buildpack_is_refused_with_what_there_is() {
        let error = |text: &str| Buildpack::parse(text).unwrap_err().to_string();
        assert!(error("heroku/cobol").contains("no buildpack heroku/cobol here yet"), "{}", error("heroku/cobol"));
        assert!(error("").contains("heroku/nodejs, heroku/clojure, heroku/python"));
        assert_eq!(source("heroku/jvm"), Source::Own("jvm"));
        assert!(error("some where").contains("is not a buildpack"));
        assert!(error("acme/thing").contains("is not a buildpack"));
        assert!(error("file://relative").contains("is not a buildpack"));
        assert!(error("https://example.org/a.git#--upload-pack=x").contains("not the name of a branch"));
        assert!(error("https://example.org/a\tpack").contains("is not a buildpack"));
    }

    #[test]
    fn credentials_in_a_url_are_not_shown() {
        let pack = Buildpack::parse("https://me:secret@example.org/a/pack.git#x").unwrap();
        assert_eq!(pack.to_string(), "https://example.org/a/pack.git#x");
        assert_eq!(Buildpack::parse("git@example.org:a").unwrap().to_string(), "git@example.org:a");
    }

    #[test]
    fn own_packs_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        for folder in OWN.map(|(folder, _)| folder).into_iter().chain(BY_NAME) {
            let dest = dir.path().join(folder);
            write_own(folder, &dest).unwrap();
            for file in ["bin/detect", "bin/compile", "bin/release", "lib/output.sh", "lib/memory.sh"] {
                assert!(dest.join(file).is_file(), "{folder} lacks {file}");
            }
            let mode = dest.join("bin/compile").metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111);
        }
    }
}
