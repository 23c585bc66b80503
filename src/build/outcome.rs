//! What a build that ended well has made: read from directories that strangers' code wrote into.
#![forbid(unsafe_code)]

use super::choice::Choice;
use super::stage::Stage;
use crate::domain::log::clean;
use crate::domain::procfile::{ProcessType, ProcessTypes, Procfile, ProcfileError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

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
    /// Config vars for those that have no value yet, at an app's first deploy (Heroku's rule for this old part of the
    /// classic API).
    pub config_vars: BTreeMap<String, String>,
    /// Add-on plans that the buildpack would like the app to have, likewise.
    pub addons: Vec<String>,
    /// What the pusher is told about the process types, line by line.
    pub report: Vec<String>,
}

/// Anything may be missing or null; values that YAML takes for numbers or truths are meant as texts.
#[derive(Default, Deserialize)]
struct ReleaseFile {
    default_process_types: Option<BTreeMap<String, Value>>,
    config_vars: Option<BTreeMap<String, Value>>,
    addons: Option<Vec<String>>,
}

/// What `bin/release` said.
#[derive(Default)]
struct Defaults {
    types: ProcessTypes,
    config_vars: BTreeMap<String, String>,
    addons: Vec<String>,
}

/// # Errors
/// When the Procfile or the buildpack's answer is not usable, in words for the pusher.
pub fn read(stage: &Stage, choice: &Choice) -> Result<Outcome, OutcomeError> {
    let result = |name: &str| stage.read_result(name);
    let name = result("name")?.ok_or(OutcomeError::Silent)?;
    let detected = if choice.detect { Some(detected(stage, choice)?) } else { None };
    let defaults = defaults(&result("release.yml")?.unwrap_or_default())?;
    let procfile = match stage.read_source("Procfile") {
        Ok(text) => text.map(|text| Procfile::parse(&text)).transpose()?,
        Err(_) => return Err(OutcomeError::ProcfileUnreadable),
    };
    let name = clean(name.trim().as_bytes()).chars().take(80).collect::<String>();
    Ok(compose(name, detected, procfile, defaults))
}

/// Which of the candidates matched the app.
///
/// # Errors
/// When the driver has not said it.
pub fn detected(stage: &Stage, choice: &Choice) -> Result<usize, OutcomeError> {
    let text = stage.read_result("pack")?;
    let index = text.and_then(|text| text.trim().parse().ok()).ok_or(OutcomeError::Silent)?;
    if index < choice.packs.len() { Ok(index) } else { Err(OutcomeError::Silent) }
}

fn compose(name: String, detected: Option<usize>, procfile: Option<Procfile>, defaults: Defaults) -> Outcome {
    let list =
        |types: &mut dyn Iterator<Item = &ProcessType>| types.map(ProcessType::as_str).collect::<Vec<_>>().join(", ");
    let procfile = procfile.unwrap_or_default();
    let mut report = vec!["-----> Discovering process types".to_owned()];
    report.extend(procfile.warnings.iter().map(|warning| format!(" !     {warning}")));
    let declared = list(&mut procfile.types.keys());
    let declared = if declared.is_empty() { "(none)" } else { &declared };
    report.push(format!("       Procfile declares types -> {declared}"));
    let added = list(&mut defaults.types.keys().filter(|kind| !procfile.types.contains_key(kind)));
    if !added.is_empty() {
        report.push(format!("       Default types for {name} -> {added}"));
    }
    let mut types = defaults.types;
    types.extend(procfile.types);
    Outcome { name, detected, types, config_vars: defaults.config_vars, addons: defaults.addons, report }
}

fn defaults(yaml: &str) -> Result<Defaults, OutcomeError> {
    let wrong = |what: &dyn std::fmt::Display| OutcomeError::Release(clean(what.to_string().as_bytes()));
    if yaml.trim().trim_start_matches('-').trim().is_empty() {
        return Ok(Defaults::default());
    }
    let release: Option<ReleaseFile> = serde_saphyr::from_str(yaml).map_err(|error| wrong(&error))?;
    let release = release.unwrap_or_default();
    let types = release
        .default_process_types
        .unwrap_or_default()
        .into_iter()
        .filter_map(worded)
        .map(|(kind, command)| Ok((ProcessType::parse(&kind).map_err(|error| wrong(&error))?, command)));
    Ok(Defaults {
        types: types.collect::<Result<_, OutcomeError>>()?,
        config_vars: release.config_vars.unwrap_or_default().into_iter().filter_map(worded).collect(),
        addons: release.addons.unwrap_or_default(),
    })
}

/// Without those that have no value.
fn worded((key, value): (String, Value)) -> Option<(String, String)> {
    match value {
        Value::String(text) => Some((key, text)),
        Value::Number(_) | Value::Bool(_) => Some((key, value.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Buildpack;
    use crate::build::reading::TEXT_LIMIT;
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
        Choice::listed(vec![Buildpack::own("nodejs")])
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
    fn config_vars_of_the_old_api_are_taken_as_texts() {
        let yaml = "addons:\n- heroku-postgresql\nconfig_vars:\n  PORTS: 3\n  ON: true\n  NAME: x y\n  NONE:\n\
                    default_process_types:\n  web: 5\n  worker:\n";
        let made = made(&[NAME, ("result/release.yml", yaml)]);
        let outcome = read(&made.stage, &listed()).unwrap();
        let pairs: Vec<_> = outcome.config_vars.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["NAME=x y", "ON=true", "PORTS=3"]);
        assert_eq!(outcome.addons, ["heroku-postgresql"]);
        assert_eq!(outcome.types.into_values().collect::<Vec<_>>(), ["5"]);
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
        let candidates = Choice::own();
        let read = |pack: &str| read(&made(&[NAME, ("result/pack", pack)]).stage, &candidates);
        assert_eq!(read("1\n").unwrap().detected, Some(1));
        assert!(matches!(read(&candidates.packs.len().to_string()), Err(OutcomeError::Silent)));
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
