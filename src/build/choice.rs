//! Which buildpacks a build uses, decided before it starts.
//!
//! In Heroku's order: those that the app's owner set; the config var `BUILDPACK_URL`; at the first deploy `app.json`; `.buildpacks`; the app's own
//! scripts; and only then, by detection, one of ours.
#![forbid(unsafe_code)]

use super::buildpack::{self, Buildpack, BuildpackError};
use super::manifest::Manifest;
use super::stage::Stage;
use crate::domain::config_vars::ConfigVars;

/// More than this nobody lists on purpose.
const MOST: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub packs: Vec<Buildpack>,
    /// The packs are candidates: the first that detects the app is used.
    pub detect: bool,
    /// What was used becomes the app's own list once a build has succeeded, so that a new file does not change it.
    pub pin: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error("The config var BUILDPACK_URL can't be used: {0}.")]
    Variable(#[source] BuildpackError),
    #[error("Line {line} of .buildpacks can't be used: {source}.")]
    File { line: usize, source: BuildpackError },
    #[error("app.json names a buildpack that can't be used: {0}.")]
    Manifest(#[source] BuildpackError),
    #[error(".buildpacks lists more than {MOST} buildpacks.")]
    Many,
    #[error(".buildpacks is not a text file of at most 256 KB.")]
    Unreadable,
}

impl Choice {
    pub fn listed(packs: Vec<Buildpack>) -> Self {
        Self { packs, detect: false, pin: false }
    }

    /// What `app.json` lists, as if the owner had set it when the app was made.
    fn declared(urls: &[String]) -> Result<Self, ChoiceError> {
        let packs = urls.iter().map(|url| Buildpack::parse(url).map_err(ChoiceError::Manifest));
        Ok(Self { packs: packs.collect::<Result<_, _>>()?, detect: false, pin: true })
    }

    /// Our own, in Heroku's order of detection.
    pub fn own() -> Self {
        Self {
            packs: buildpack::OWN.iter().map(|(folder, _)| Buildpack::own(folder)).collect(),
            detect: true,
            pin: true,
        }
    }

    /// The app's own scripts.
    pub fn inline() -> Self {
        Self { packs: vec![Buildpack::inline()], detect: true, pin: true }
    }

    /// What an app is built with whose owner has set nothing.
    ///
    /// # Errors
    /// When `BUILDPACK_URL` or `.buildpacks` name what is no buildpack.
    pub fn unset(config: &ConfigVars, manifest: Option<&Manifest>, stage: &Stage) -> Result<Self, ChoiceError> {
        if let Some(url) = config.get("BUILDPACK_URL").filter(|url| !url.trim().is_empty()) {
            return Ok(Self::listed(vec![Buildpack::parse(url).map_err(ChoiceError::Variable)?]));
        }
        if let Some(manifest) = manifest.filter(|manifest| !manifest.buildpacks.is_empty()) {
            return Self::declared(&manifest.buildpacks);
        }
        let file = stage.read_source(".buildpacks").map_err(|_| ChoiceError::Unreadable)?;
        let packs = file.as_deref().map(parse).transpose()?.unwrap_or_default();
        if !packs.is_empty() {
            return Ok(Self::listed(packs));
        }
        Ok(if stage.is_inline() { Self::inline() } else { Self::own() })
    }
}

/// `.buildpacks`: one a line, in the order they run; `#` begins a comment where no URL can have it.
fn parse(text: &str) -> Result<Vec<Buildpack>, ChoiceError> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let meant = lines.map(|(index, line)| (index + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let packs = meant
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(line, text)| Buildpack::parse(text).map_err(|source| ChoiceError::File { line, source }))
        .collect::<Result<Vec<_>, _>>()?;
    if packs.len() > MOST { Err(ChoiceError::Many) } else { Ok(packs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::build::BuildId;
    use std::fs;
    use uuid::Uuid;

    struct Made {
        _root: tempfile::TempDir,
        stage: Stage,
    }

    fn made(buildpacks: Option<&str>) -> Made {
        let root = tempfile::tempdir().unwrap();
        let stage = Stage::create(root.path(), BuildId(Uuid::nil())).unwrap();
        if let Some(text) = buildpacks {
            fs::write(stage.source().join(".buildpacks"), text).unwrap();
        }
        Made { _root: root, stage }
    }

    fn chosen(config: &[(&str, &str)], made: &Made) -> Result<Vec<String>, String> {
        let patch = config.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
        let (config, _) = ConfigVars::default().merge(&patch).unwrap();
        let choice = Choice::unset(&config, None, &made.stage).map_err(|error| error.to_string())?;
        Ok(choice.packs.into_iter().map(|pack| pack.written).collect())
    }

    #[test]
    fn the_file_lists_packs_in_order() {
        let made = made(Some("# first\n\n  heroku/nodejs\r\nhttps://example.org/x.git#v1\n"));
        assert_eq!(chosen(&[], &made).unwrap(), ["heroku/nodejs", "https://example.org/x.git#v1"]);
    }

    #[test]
    fn the_config_var_wins_over_the_file() {
        let made = made(Some("heroku/nodejs\n"));
        assert_eq!(chosen(&[("BUILDPACK_URL", "heroku/python")], &made).unwrap(), ["heroku/python"]);
        assert_eq!(chosen(&[("BUILDPACK_URL", " ")], &made).unwrap(), ["heroku/nodejs"]);
    }

    #[test]
    fn without_either_packs_are_detected() {
        for text in [None, Some("# nothing\n")] {
            let made = made(text);
            let choice = Choice::unset(&ConfigVars::default(), None, &made.stage).unwrap();
            assert_eq!(choice, Choice::own());
        }
        let made = made(None);
        fs::create_dir(made.stage.source().join("bin")).unwrap();
        for script in ["detect", "compile"] {
            fs::write(made.stage.source().join("bin").join(script), "").unwrap();
        }
        assert_eq!(chosen(&[], &made).unwrap(), ["inline"]);
    }

    #[test]
    fn what_is_no_buildpack_is_said_with_its_place() {
        let error = chosen(&[], &made(Some("heroku/nodejs\nsome where\n"))).unwrap_err();
        assert!(error.starts_with("Line 2 of .buildpacks can't be used: \"some where\" is not a buildpack"), "{error}");
        let error = chosen(&[("BUILDPACK_URL", "x y")], &made(None)).unwrap_err();
        assert!(error.starts_with("The config var BUILDPACK_URL can't be used"), "{error}");
        let error = chosen(&[], &made(Some(&"heroku/nodejs\n".repeat(21)))).unwrap_err();
        assert!(error.contains("more than 20"), "{error}");
    }
}
