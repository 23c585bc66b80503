//! The Procfile: which command each process type runs.
//!
//! Grammar as in Heroku's article and the `buildpacks-procfile` specification: one `type: command` on a line, `#`
//! comments, blank lines and lines that declare nothing are passed over, CRLF is tolerated, the last duplicate wins.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The name of a process type: `web`, `worker`, `release`; letters, digits, `-` and `_`. Cheap to clone: every dyno has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessType(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a process type: use up to 63 letters, digits, dashes and underscores")]
pub struct ProcessTypeError(pub String);

impl ProcessType {
    /// # Errors
    /// When the text is empty, longer than 63 characters, or has others than letters, digits, `-` and `_`.
    pub fn parse(text: &str) -> Result<Self, ProcessTypeError> {
        let fine = !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fine { Ok(Self(text.into())) } else { Err(ProcessTypeError(text.to_owned())) }
    }

    pub fn web() -> Self {
        Self("web".into())
    }

    /// The release phase's type, which runs once for each new release and never scales.
    pub fn release() -> Self {
        Self("release".into())
    }

    /// `web` is the only type that gets a port and requests.
    pub fn is_web(&self) -> bool {
        &*self.0 == "web"
    }

    pub fn is_release(&self) -> bool {
        &*self.0 == "release"
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProcessType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProcessType {
    type Error = ProcessTypeError;
    fn try_from(text: String) -> Result<Self, ProcessTypeError> {
        Self::parse(&text)
    }
}

impl From<ProcessType> for String {
    fn from(kind: ProcessType) -> Self {
        kind.0.as_ref().to_owned()
    }
}

/// Process type → shell command.
pub type ProcessTypes = BTreeMap<ProcessType, String>;

/// A parsed Procfile with what is worth telling its author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Procfile {
    pub types: ProcessTypes,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcfileError {
    #[error("Procfile line {line} is a merge conflict marker: {text:?}. Resolve the conflict and commit again.")]
    MergeConflict { line: usize, text: String },
    #[error("Procfile line {line} has a NUL byte; it is not a text file")]
    NotText { line: usize },
    #[error("Procfile declares no process types{}. Write lines like `web: npm start`.", first_line(ignored.as_ref()))]
    Empty {
        /// The first line that is none, and its number.
        ignored: Option<(usize, String)>,
    },
}

fn first_line(ignored: Option<&(usize, String)>) -> String {
    ignored
        .map_or_else(String::new, |(line, text)| format!(": line {line} is not of the form `TYPE: COMMAND`: {text:?}"))
}

impl Procfile {
    /// # Errors
    /// When the file holds merge-conflict markers, is no text, or declares nothing at all.
    pub fn parse(text: &str) -> Result<Self, ProcfileError> {
        let (mut procfile, mut ignored) = (Self::default(), None);
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim_end_matches('\r').trim());
            if line.contains('\0') {
                return Err(ProcfileError::NotText { line: number });
            }
            if ["<<<<<<<", ">>>>>>>", "======="].iter().any(|marker| line.starts_with(marker)) {
                return Err(ProcfileError::MergeConflict { line: number, text: line.to_owned() });
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((kind, command)) = declaration(line) else {
                procfile.warnings.push(format!(
                    "Procfile line {number} is ignored, it is not of the form `<process type>: <command>`: {line}"
                ));
                ignored.get_or_insert_with(|| (number, line.to_owned()));
                continue;
            };
            if procfile.types.insert(kind.clone(), command.to_owned()).is_some() {
                procfile.warnings.push(format!("Procfile declares {kind} more than once; line {number} is used"));
            }
        }
        if procfile.types.is_empty() { Err(ProcfileError::Empty { ignored }) } else { Ok(procfile) }
    }
}

fn declaration(line: &str) -> Option<(ProcessType, &str)> {
    let (kind, command) = line.split_once(':')?;
    let command = command.trim();
    if command.is_empty() {
        return None;
    }
    Some((ProcessType::parse(kind.trim()).ok()?, command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn types(text: &str) -> Vec<(String, String)> {
        let parsed = Procfile::parse(text).unwrap();
        parsed.types.into_iter().map(|(kind, command)| (kind.to_string(), command)).collect()
    }

    #[test]
    fn declares_types() {
        let text = "# comment\r\n\r\nweb: node server.js --port $PORT\r\nworker:  python work.py:main  \r\n";
        assert_eq!(
            types(text),
            [
                ("web".to_owned(), "node server.js --port $PORT".to_owned()),
                ("worker".to_owned(), "python work.py:main".to_owned())
            ]
        );
    }

    #[test]
    fn warns_of_what_it_passes_over() {
        let parsed = Procfile::parse("web: a\nweb: b\nno colon here\nworker:\n").unwrap();
        assert_eq!(parsed.types[&ProcessType::web()], "b");
        assert_eq!(parsed.warnings.len(), 3);
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        let conflict = "web: a\n<<<<<<< HEAD\nworker: b\n=======\nworker: c\n>>>>>>> other\n";
        assert_eq!(
            Procfile::parse(conflict),
            Err(ProcfileError::MergeConflict { line: 2, text: "<<<<<<< HEAD".into() })
        );
        assert_eq!(Procfile::parse("\n# nothing\n"), Err(ProcfileError::Empty { ignored: None }));
        let error = Procfile::parse("# web\nweb node server.js\n").unwrap_err().to_string();
        assert!(error.contains("line 2 is not of the form `TYPE: COMMAND`: \"web node server.js\""), "{error}");
        assert_eq!(Procfile::parse("web: \0"), Err(ProcfileError::NotText { line: 1 }));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_says_the_same_when_it_is_written_again(
            text in "\\PC{0,120}|([a-z]{0,4}[: #]{0,3}[ -~\\r\\n\\x00<>=]{0,20}\n){0,6}"
        ) {
            if let Ok(procfile) = Procfile::parse(&text) {
                let lines: Vec<String> =
                    procfile.types.iter().map(|(kind, command)| format!("{kind}: {command}")).collect();
                prop_assert_eq!(Procfile::parse(&lines.join("\n")).map(|again| again.types), Ok(procfile.types));
            }
        }
    }
}
