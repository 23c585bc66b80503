//! Config vars: an app's settings, kept outside its code.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All keys and values of one app together, in bytes (Heroku's limit).
pub const MAX_BYTES: usize = 64 * 1024;

/// A checked set of config vars, ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigVars(BTreeMap<String, String>);

/// What a `PATCH /config-vars` asks for: a value sets, `None` unsets.
pub type ConfigPatch = BTreeMap<String, Option<String>>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0:?} is not a valid config var name: use letters, digits and underscores, not beginning with a digit")]
    Key(String),
    #[error("{0} is set by the platform and can't be a config var")]
    Reserved(String),
    #[error("The value of {0} contains a NUL byte, which no environment can hold")]
    Nul(String),
    #[error("Config vars would take {0} bytes; the limit is {MAX_BYTES} bytes for all keys and values together")]
    TooLarge(usize),
}

/// Names the platform itself gives to every dyno.
const RESERVED: [&str; 2] = ["PORT", "DYNO"];

impl ConfigVars {
    /// The set after `patch`, and whether that is a change at all.
    ///
    /// # Errors
    /// When a key or value is not allowed or the whole set grows too large; then nothing is changed.
    pub fn merge(&self, patch: &ConfigPatch) -> Result<(Self, bool), ConfigError> {
        let mut next = self.0.clone();
        for (key, value) in patch {
            match value {
                None => {
                    next.remove(key);
                }
                Some(value) => {
                    check_key(key)?;
                    if value.contains('\0') {
                        return Err(ConfigError::Nul(key.clone()));
                    }
                    next.insert(key.clone(), value.clone());
                }
            }
        }
        let bytes = next.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_BYTES {
            return Err(ConfigError::TooLarge(bytes));
        }
        let changed = next != self.0;
        Ok((Self(next), changed))
    }

    /// The set with `defaults` for those keys that are not in it.
    ///
    /// # Errors
    /// As [`ConfigVars::merge`].
    pub fn with_defaults(&self, defaults: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let new = defaults.iter().filter(|(key, _)| !self.0.contains_key(*key));
        let patch = new.map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        Ok(self.merge(&patch)?.0)
    }

    /// The set with those of `others` too, which win.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of names that were checked already.
impl FromIterator<(String, String)> for ConfigVars {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(vars: T) -> Self {
        Self(vars.into_iter().collect())
    }
}

fn check_key(key: &str) -> Result<(), ConfigError> {
    let head = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !head || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(ConfigError::Key(key.to_owned()));
    }
    if RESERVED.contains(&key) {
        return Err(ConfigError::Reserved(key.to_owned()));
    }
    Ok(())
}

/// A release's description of a patch, as Heroku words it: `Set A, B config vars`, `Remove C config vars`, or both.
pub fn describe(patch: &ConfigPatch) -> String {
    let list = |set: bool| {
        let keys: Vec<&str> =
            patch.iter().filter(|(_, value)| value.is_some() == set).map(|(key, _)| key.as_str()).collect();
        keys.join(", ")
    };
    match (list(true), list(false)) {
        (set, removed) if removed.is_empty() => format!("Set {set} config vars"),
        (set, removed) if set.is_empty() => format!("Remove {removed} config vars"),
        (set, removed) => format!("Set {set}, Remove {removed} config vars"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patch(pairs: &[(&str, Option<&str>)]) -> ConfigPatch {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn null_unsets_and_equal_values_change_nothing() {
        let (vars, changed) = ConfigVars::default().merge(&patch(&[("A", Some("1")), ("B", Some(""))])).unwrap();
        assert!(changed);
        assert!(!vars.merge(&patch(&[("A", Some("1")), ("GONE", None)])).unwrap().1);
        let (vars, changed) = vars.merge(&patch(&[("A", None)])).unwrap();
        assert!(changed);
        assert_eq!(vars.iter().collect::<Vec<_>>(), [("B", "")]);
    }

    #[test]
    fn bad_keys_and_sizes_are_refused() {
        let set = |key: &str, value: &str| ConfigVars::default().merge(&patch(&[(key, Some(value))]));
        for bad in ["", "1A", "A B", "A=B", "É", "A-B"] {
            assert_eq!(set(bad, "x").unwrap_err(), ConfigError::Key(bad.into()));
        }
        assert_eq!(set("PORT", "1").unwrap_err(), ConfigError::Reserved("PORT".into()));
        assert_eq!(set("A", "x\0").unwrap_err(), ConfigError::Nul("A".into()));
        assert!(set("A", &"x".repeat(MAX_BYTES - 1)).is_ok());
        assert_eq!(set("A", &"x".repeat(MAX_BYTES)).unwrap_err(), ConfigError::TooLarge(MAX_BYTES + 1));
    }

    #[test]
    fn patches_are_described_as_heroku_does() {
        assert_eq!(describe(&patch(&[("B", Some("1")), ("A", Some("1"))])), "Set A, B config vars");
        assert_eq!(describe(&patch(&[("A", None)])), "Remove A config vars");
        assert_eq!(describe(&patch(&[("A", Some("1")), ("B", None)])), "Set A, Remove B config vars");
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(keys in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,5}", proptest::option::of("[a-z]{0,4}"), 0..8)) {
            prop_assume!(!keys.contains_key("PORT") && !keys.contains_key("DYNO"));
            let (once, _) = ConfigVars::default().merge(&keys).unwrap();
            let (twice, changed) = once.merge(&keys).unwrap();
            prop_assert!(!changed);
            prop_assert_eq!(once, twice);
        }
    }
}
