//! `app.json`: what a source says its app needs, for the app's first deploy.
//!
//! Heroku reads it when an app is created from its source; here an app exists before its source, so the first deploy
//! is that moment. Later deploys take nothing from it: what an owner has changed since then stays.
#![forbid(unsafe_code)]

use super::stage::Stage;
use crate::domain::config_vars::ConfigVars;
use crate::domain::formation::{Formation, MAX_QUANTITY, Scale};
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::domain::stack::{StackName, StackNameError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("app.json can't be read: {0}.")]
    Syntax(#[from] serde_json::Error),
    #[error("app.json is not a text file of at most 256 KB.")]
    Unreadable,
    #[error(
        "app.json says that this app needs config vars that have no value yet: {list}. Set them (`hokku config:set {first}=…`) and deploy again.",
        list = .0.join(", "), first = .0[0]
    )]
    Missing(Vec<String>),
    #[error("app.json asks for a stack that can't be had. {0}. Correct it, or choose one with `hokku stack:set`.")]
    Stack(#[from] StackNameError),
}

/// What an `app.json` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// As it is written; an app whose owner has chosen a stack needs none that is known.
    pub stack: Option<String>,
    pub buildpacks: Vec<String>,
    /// Config vars for those that have no value yet.
    pub defaults: BTreeMap<String, String>,
    /// Variables that the file marks `"required": true` and gives no value.
    pub required: Vec<String>,
    pub formation: Formation,
    /// Runs in a one-off dyno after the first release.
    pub postdeploy: Option<String>,
    pub addons: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    stack: Option<String>,
    buildpacks: Option<Vec<Pack>>,
    env: Option<BTreeMap<String, Variable>>,
    formation: Option<BTreeMap<String, Type>>,
    scripts: Option<Scripts>,
    addons: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Pack {
    url: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Variable {
    Full { value: Option<Value>, generator: Option<String>, required: Option<bool> },
    Plain(Value),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Type {
    quantity: Option<u32>,
    size: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Scripts {
    postdeploy: Option<Value>,
}

impl Manifest {
    /// The source's, or `None` when it has none.
    ///
    /// # Errors
    /// When it is not JSON of the known form.
    pub fn read(stage: &Stage) -> Result<Option<Self>, ManifestError> {
        let text = stage.read_source("app.json").map_err(|_| ManifestError::Unreadable)?;
        text.as_deref().map(Self::parse).transpose()
    }

    fn parse(text: &str) -> Result<Self, ManifestError> {
        let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}'))?;
        let (mut defaults, mut required) = (BTreeMap::new(), Vec::new());
        for (key, variable) in file.env.unwrap_or_default() {
            let (value, needed) = match variable {
                Variable::Plain(value) => (word(&value), false),
                Variable::Full { generator: Some(kind), .. } if kind == "secret" => (Some(secret()), false),
                Variable::Full { value, required, .. } => (value.as_ref().and_then(word), required == Some(true)),
            };
            match value {
                Some(value) => drop(defaults.insert(key, value)),
                None if needed => required.push(key),
                None => {}
            }
        }
        let formation = file.formation.unwrap_or_default().into_iter().filter_map(scale).collect();
        Ok(Self {
            stack: file.stack,
            buildpacks: file.buildpacks.unwrap_or_default().into_iter().map(|pack| pack.url).collect(),
            defaults,
            required,
            formation: Formation(formation),
            postdeploy: file.scripts.and_then(|scripts| scripts.postdeploy).as_ref().and_then(word),
            addons: file.addons.unwrap_or_default().iter().filter_map(addon).collect(),
        })
    }

    /// # Errors
    /// When the stack is none.
    pub fn stack(&self) -> Result<Option<StackName>, ManifestError> {
        Ok(self.stack.as_deref().map(str::parse).transpose()?)
    }

    /// # Errors
    /// When a variable that has to have a value has none.
    pub fn check(&self, config: &ConfigVars) -> Result<(), ManifestError> {
        let missing: Vec<_> = self.required.iter().filter(|key| config.get(key).is_none()).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(ManifestError::Missing(missing)) }
    }
}

/// Texts as they are, numbers and booleans as JSON writes them; nothing for what has no value.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn scale((kind, wanted): (String, Type)) -> Option<(ProcessType, Scale)> {
    let kind = ProcessType::parse(&kind).ok().filter(|kind| !kind.is_release())?;
    // Sizes that Heroku no longer has (`free`, `hobby`) are still in many files.
    let size = wanted.size.and_then(|size| size.parse::<DynoSize>().ok()).unwrap_or_default();
    Some((kind, Scale { quantity: wanted.quantity.unwrap_or(1).min(MAX_QUANTITY), size }))
}

/// `"heroku-postgresql:mini"` or `{"plan": …}`.
fn addon(value: &Value) -> Option<String> {
    word(value).or_else(|| value.get("plan").and_then(word))
}

/// As long as Heroku's: 64 hexadecimal digits.
fn secret() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes");
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Manifest {
        Manifest::parse(text).unwrap()
    }

    #[test]
    fn the_known_form_is_read_and_the_rest_is_not_minded() {
        let manifest = parse(
            r#"{"name": "x", "keywords": [], "stack": "heroku-24",
                "buildpacks": [{"url": "heroku/nodejs"}, {"url": "https://example.org/x.git"}],
                "env": {"A": "plain", "B": {"value": 3}, "C": {"description": "?"}, "D": {"required": true},
                        "E": {"required": true, "value": "given"}, "F": null},
                "formation": {"web": {"quantity": 2, "size": "standard-2x"}, "worker": {"size": "free"}, "release": {}},
                "scripts": {"postdeploy": "bin/seed", "test": "x"},
                "addons": ["heroku-postgresql:mini", {"plan": "heroku-redis"}]}"#,
        );
        assert_eq!(manifest.stack().unwrap(), Some(StackName::Debian13));
        assert_eq!(manifest.buildpacks, ["heroku/nodejs", "https://example.org/x.git"]);
        let pairs: Vec<_> = manifest.defaults.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["A=plain", "B=3", "E=given"]);
        assert_eq!(manifest.required, ["D"]);
        let scales: Vec<_> =
            manifest.formation.0.iter().map(|(kind, s)| format!("{kind}={}:{}", s.quantity, s.size)).collect();
        assert_eq!(scales, ["web=2:Standard-2X", "worker=1:Basic"]);
        assert_eq!(manifest.postdeploy.as_deref(), Some("bin/seed"));
        assert_eq!(manifest.addons, ["heroku-postgresql:mini", "heroku-redis"]);
        assert_eq!(parse("{}"), Manifest::default());
    }

    #[test]
    fn stacks_are_known_by_their_names_here_and_at_heroku() {
        let stack = |name: &str| parse(&format!(r#"{{"stack": "{name}"}}"#)).stack();
        assert_eq!(stack("host").unwrap(), Some(StackName::Host));
        for name in ["debian-13", "heroku-24", "heroku-22"] {
            assert_eq!(stack(name).unwrap(), Some(StackName::Debian13), "{name}");
        }
        let error = stack("container").unwrap_err().to_string();
        assert!(error.contains("There is no stack \"container\"; the stacks are host and debian-13"), "{error}");
        assert!(error.ends_with("or choose one with `hokku stack:set`."), "{error}");
        assert_eq!(parse(r#"{"stack": null}"#).stack().unwrap(), None);
    }

    #[test]
    fn secrets_are_made_anew() {
        let made = || parse(r#"{"env": {"S": {"generator": "secret", "required": true}}}"#).defaults["S"].clone();
        assert_eq!(made().len(), 64);
        assert_ne!(made(), made());
    }

    #[test]
    fn what_is_required_is_named_until_it_is_set() {
        let manifest = parse(r#"{"env": {"KEY": {"required": true}, "TOKEN": {"required": true}}}"#);
        let (config, _) = ConfigVars::default().merge(&[("KEY".to_owned(), Some("1".to_owned()))].into()).unwrap();
        let error = manifest.check(&config).unwrap_err().to_string();
        assert!(error.contains("no value yet: TOKEN.") && error.contains("config:set TOKEN="), "{error}");
        assert!(Manifest::parse("{").unwrap_err().to_string().starts_with("app.json can't be read: "));
        assert!(Manifest::parse(r#"{"buildpacks": "x"}"#).is_err());
    }
}
