//! What a build that ended well has made: read from directories that strangers' code wrote into.
#![forbid(unsafe_code)]

use super::compile::Choice;
use super::stage::Stage;
use crate::domain::log::clean;
use crate::domain::procfile::{ProcessType, ProcessTypes, Procfile, ProcfileError};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Nobody writes a Procfile or a `bin/release` longer than this.
const TEXT_LIMIT: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    #[error(transparent)]
    Procfile(#[from] ProcfileError),
    #[error("Procfile is not a text file of at most 256 KB.")]
    ProcfileUnreadable,
    #[error("The buildpack's bin/release did not print what it should: {0}")]
    Release(String),
    #[error("The build did not say what it has made.")]
    Silent,
    #[error("can't read the results of the build")]
    Io(#[from] io::Error),
}

/// What was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the last buildpack calls the app: `Node.js`.
    pub name: String,
    /// The one that detection chose; `None` when they were listed.
    pub detected: Option<usize>,
    pub types: ProcessTypes,
    /// What the pusher is told about the process types, line by line.
    pub report: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ReleaseFile {
    default_process_types: Option<BTreeMap<String, String>>,
}

/// # Errors
/// When the Procfile or the buildpack's answer is not usable, in words for the pusher.
pub fn read(stage: &Stage, choice: &Choice) -> Result<Outcome, OutcomeError> {
    let result = |name: &str| text_below(&stage.work(), &format!("result/{name}"), ResolveFlags::NO_SYMLINKS);
    let name = result("name")?.ok_or(OutcomeError::Silent)?;
    let detected = if choice.detect {
        Some(result("pack")?.and_then(|text| text.trim().parse().ok()).ok_or(OutcomeError::Silent)?)
    } else {
        None
    };
    if detected.is_some_and(|index: usize| index >= choice.packs.len()) {
        return Err(OutcomeError::Silent);
    }
    let defaults = default_types(&result("release.yml")?.unwrap_or_default())?;
    let procfile = match text_below(&stage.source(), "Procfile", ResolveFlags::NO_MAGICLINKS) {
        Ok(text) => text.map(|text| Procfile::parse(&text)).transpose()?,
        Err(_) => return Err(OutcomeError::ProcfileUnreadable),
    };
    let name = clean(name.trim().as_bytes()).chars().take(80).collect::<String>();
    Ok(compose(name, detected, procfile, defaults))
}

fn compose(name: String, detected: Option<usize>, procfile: Option<Procfile>, defaults: ProcessTypes) -> Outcome {
    let list =
        |types: &mut dyn Iterator<Item = &ProcessType>| types.map(ProcessType::as_str).collect::<Vec<_>>().join(", ");
    let procfile = procfile.unwrap_or_default();
    let mut report = vec!["-----> Discovering process types".to_owned()];
    report.extend(procfile.warnings.iter().map(|warning| format!(" !     {warning}")));
    let declared = list(&mut procfile.types.keys());
    let declared = if declared.is_empty() { "(none)" } else { &declared };
    report.push(format!("       Procfile declares types -> {declared}"));
    let added = list(&mut defaults.keys().filter(|kind| !procfile.types.contains_key(kind)));
    if !added.is_empty() {
        report.push(format!("       Default types for {name} -> {added}"));
    }
    let mut types = defaults;
    types.extend(procfile.types);
    Outcome { name, detected, types, report }
}

fn default_types(yaml: &str) -> Result<ProcessTypes, OutcomeError> {
    let wrong = |what: &dyn std::fmt::Display| OutcomeError::Release(clean(what.to_string().as_bytes()));
    if yaml.trim().trim_start_matches('-').trim().is_empty() {
        return Ok(ProcessTypes::new());
    }
    let release: Option<ReleaseFile> = serde_saphyr::from_str(yaml).map_err(|error| wrong(&error))?;
    let types = release.unwrap_or_default().default_process_types.unwrap_or_default();
    types
        .into_iter()
        .map(|(kind, command)| Ok((ProcessType::parse(&kind).map_err(|error| wrong(&error))?, command)))
        .collect()
}

/// A small text file below `dir`, or `None` when there is none. No way leads out of `dir`, and no device, pipe or
/// endless file is read.
fn text_below(dir: &Path, name: &str, resolve: ResolveFlags) -> io::Result<Option<String>> {
    let dir = openat(CWD, dir, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat2(&dir, name, flags, Mode::empty(), ResolveFlags::BENEATH | resolve) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if rustix::fs::FileType::from_raw_mode(fstat(&file)?.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = String::new();
    let read = File::from(file).take(TEXT_LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > TEXT_LIMIT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Buildpack;
    use crate::domain::build::BuildId;
    use std::fs;
    use std::os::unix::fs::symlink;
    use uuid::Uuid;

    struct Made {
        _root: tempfile::TempDir,
        stage: Stage,
    }

    fn made(files: &[(&str, &str)]) -> Made {
        let root = tempfile::tempdir().unwrap();
        let stage = Stage::create(root.path(), BuildId(Uuid::nil())).unwrap();
        for (name, text) in files {
            let path = match name.strip_prefix("result/") {
                Some(_) => stage.work().join(name),
                None => stage.source().join(name),
            };
            fs::write(path, text).unwrap();
        }
        Made { _root: root, stage }
    }

    fn listed() -> Choice {
        Choice::new(vec![Buildpack::own("nodejs")], false)
    }

    const NAME: (&str, &str) = ("result/name", "Node.js\n");
    const RELEASE: (&str, &str) =
        ("result/release.yml", "---\ndefault_process_types:\n  web: npm start\n  worker: x\n");

    fn error(made: &Made) -> String {
        read(&made.stage, &listed()).unwrap_err().to_string()
    }

    #[test]
    fn the_procfile_wins_over_defaults_of_the_same_type() {
        let made = made(&[NAME, RELEASE, ("Procfile", "web: node a.js\nclock: node b.js\nwhat\n")]);
        let outcome = read(&made.stage, &listed()).unwrap();
        let types: Vec<String> = outcome.types.iter().map(|(kind, command)| format!("{kind}={command}")).collect();
        assert_eq!(types, ["clock=node b.js", "web=node a.js", "worker=x"]);
        insta::assert_snapshot!(outcome.report.join("\n"), @r"
        -----> Discovering process types
         !     Procfile line 3 is ignored, it is not of the form `<process type>: <command>`: what
               Procfile declares types -> clock, web
               Default types for Node.js -> worker
        ");
    }

    #[test]
    fn nothing_declared_is_said() {
        for yaml in ["", "---\n", "--- {}\n", "---\naddons: []\nconfig_vars:\ndefault_process_types:\n"] {
            let made = made(&[NAME, ("result/release.yml", yaml)]);
            let outcome = read(&made.stage, &listed()).unwrap();
            assert!(outcome.types.is_empty(), "{yaml:?}");
            assert_eq!(outcome.report[1], "       Procfile declares types -> (none)");
        }
    }

    #[test]
    fn the_detected_pack_is_one_of_the_candidates() {
        let candidates = Choice::new(vec![], false);
        let read = |pack: &str| read(&made(&[NAME, ("result/pack", pack)]).stage, &candidates);
        assert_eq!(read("1\n").unwrap().detected, Some(1));
        assert!(matches!(read("2\n"), Err(OutcomeError::Silent)));
        assert!(matches!(read("x"), Err(OutcomeError::Silent)));
    }

    #[test]
    fn hostile_results_are_refused() {
        assert!(error(&made(&[])).contains("did not say"));
        assert!(error(&made(&[NAME, ("result/release.yml", "[1, 2")])).contains("bin/release"));
        assert!(error(&made(&[NAME, ("result/release.yml", "default_process_types: {'a b': x}")])).contains("a b"));

        let linked = made(&[NAME]);
        symlink("/etc/hostname", linked.stage.source().join("Procfile")).unwrap();
        assert!(error(&linked).contains("Procfile is not a text file"));

        let linked = made(&[]);
        symlink("/etc/hostname", linked.stage.work().join("result/name")).unwrap();
        assert!(matches!(read(&linked.stage, &listed()), Err(OutcomeError::Io(_))));

        let huge = "#".repeat(usize::try_from(TEXT_LIMIT).unwrap() + 1);
        assert!(error(&made(&[NAME, ("Procfile", &huge)])).contains("256 KB"));

        let directory = made(&[NAME]);
        fs::create_dir(directory.stage.source().join("Procfile")).unwrap();
        assert!(error(&directory).contains("Procfile is not a text file"));

        let merge = made(&[NAME, ("Procfile", "web: a\n<<<<<<< HEAD\n")]);
        assert!(error(&merge).contains("merge conflict marker"));
    }

    #[test]
    fn a_procfile_may_be_a_link_within_the_app() {
        let made = made(&[NAME, ("Procfile.web", "web: x\n")]);
        symlink("Procfile.web", made.stage.source().join("Procfile")).unwrap();
        assert_eq!(read(&made.stage, &listed()).unwrap().types.len(), 1);
    }
}
