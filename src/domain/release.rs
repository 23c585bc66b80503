//! A release: slug + config vars + add-ons, numbered and immutable. One can go back to any that worked.
//!
//! A release is born `Pending`. When its release phase (if the slug declares one) has passed and its web dynos accept
//! connections it is `Succeeded` and current; when either fails it is `Failed` and the last good one goes on serving.
//! Config builds on the *newest* release, so that what was set last is what `config` shows; code builds on the newest
//! one that has *not failed*, so that code which did not boot never comes back by itself.
#![forbid(unsafe_code)]

use super::actor::Actor;
use super::app::AppId;
use super::config_vars::{self, ConfigPatch, ConfigVars};
use super::slug::SlugId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

super::id! {
    /// A release's id; people use its version.
    ReleaseId
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseStatus {
    Pending,
    Succeeded,
    Failed,
}

impl ReleaseStatus {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// One release as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub id: ReleaseId,
    pub app: AppId,
    /// Counts up by one within the app and is never used again.
    pub version: u32,
    pub slug: Option<SlugId>,
    /// What people have set; [`Release::vars`] is what dynos see.
    pub config: ConfigVars,
    /// What the add-ons bring that were attached when it was made.
    pub attached: ConfigVars,
    /// Names of their plans.
    pub addons: Vec<String>,
    pub description: String,
    pub actor: Actor,
    pub status: ReleaseStatus,
    /// The release phase has passed, or there is none.
    pub phase_passed: bool,
    /// Why it failed, a sentence for people.
    pub failure: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a new release changes.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// An app's first release, before any code.
    Initial,
    /// Heroku's second, before any code: logging is on.
    EnableLogplex,
    /// New code; `commit` is the pushed commit or the client's source version. At an app's first deploy the code may
    /// bring config vars, for those that have no value yet.
    Deploy { slug: SlugId, commit: Option<&'a str>, defaults: &'a BTreeMap<String, String> },
    /// New settings.
    Config(&'a ConfigPatch),
    /// Back to an earlier release's code and settings.
    Rollback(&'a Release),
    /// A slug released through the API.
    Slug { slug: SlugId, description: Option<&'a str> },
    /// Others are attached than before.
    Addons { attached: ConfigVars, plans: Vec<String>, description: &'a str },
}

/// What a new release builds on.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// The one with the highest version, whatever became of it.
    pub newest: Option<&'a Release>,
    /// The newest that has not failed: the one that serves, or one on its way.
    pub standing: Option<&'a Release>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    #[error(transparent)]
    Config(#[from] config_vars::ConfigError),
    #[error("cannot overwrite attachment values {0}")]
    Attached(String),
    #[error("nothing changes, so there is no new release")]
    NoChange,
    #[error("can't roll back to v{0}: it has no code")]
    NoSlug(u32),
    #[error("can't roll back to v{0}: that release {1}")]
    NotEligible(u32, &'static str),
}

impl Release {
    /// The only constructor.
    ///
    /// # Errors
    /// When the config vars are not allowed, nothing changes, or the rollback target is not eligible.
    pub fn next(
        id: ReleaseId,
        app: AppId,
        history: History<'_>,
        change: &Change<'_>,
        actor: Actor,
        now: Timestamp,
    ) -> Result<Self, ReleaseError> {
        let config = || history.newest.map(|release| release.config.clone()).unwrap_or_default();
        let slug = history.standing.and_then(|release| release.slug);
        let before = history.newest.map(|release| (release.attached.clone(), release.addons.clone()));
        let (attached, addons) = match change {
            Change::Addons { attached, plans, .. } => (attached.clone(), plans.clone()),
            // Going back to an earlier release leaves add-ons as they are.
            _ => before.unwrap_or_default(),
        };
        let (slug, config, description) = match change {
            Change::Initial => (None, config(), "Initial release".to_owned()),
            Change::EnableLogplex => (None, config(), "Enable Logplex".to_owned()),
            Change::Deploy { slug, commit, defaults } => {
                (Some(*slug), config().with_defaults(defaults)?, deploy_description(*commit))
            }
            Change::Slug { slug, description } => {
                (Some(*slug), config(), description.map_or_else(|| deploy_description(None), str::to_owned))
            }
            Change::Addons { description, .. } => (slug, config(), (*description).to_owned()),
            Change::Config(patch) => {
                let patch = beside(patch, &attached)?;
                let (merged, changed) = config().merge(&patch)?;
                if !changed {
                    return Err(ReleaseError::NoChange);
                }
                (slug, merged, config_vars::describe(&patch))
            }
            Change::Rollback(target) => {
                target.check_rollback()?;
                (target.slug, target.config.clone(), format!("Rollback to v{}", target.version))
            }
        };
        Ok(Self {
            id,
            app,
            version: history.newest.map_or(1, |release| release.version + 1),
            // Without code there is nothing to boot, so nothing that could still fail.
            status: if slug.is_some() { ReleaseStatus::Pending } else { ReleaseStatus::Succeeded },
            phase_passed: slug.is_none(),
            slug,
            config,
            attached,
            addons,
            description,
            actor,
            failure: None,
            created_at: now,
            updated_at: now,
        })
    }

    /// What its dynos see.
    pub fn vars(&self) -> ConfigVars {
        self.config.with(&self.attached)
    }

    /// The newest that brought other code than the one it was made on; `releases` are newest first.
    pub fn latest_deployment(releases: &[Self]) -> Option<&Self> {
        let before = |at: usize| {
            let mut older = releases[at + 1..].iter();
            older.find(|older| older.status != ReleaseStatus::Failed).and_then(|older| older.slug)
        };
        let deploys = |(at, release): &(usize, &Self)| release.slug.is_some() && release.slug != before(*at);
        releases.iter().enumerate().find(deploys).map(|(_, release)| release)
    }

    /// Whether one can go back to this release.
    pub fn eligible_for_rollback(&self) -> bool {
        self.check_rollback().is_ok()
    }

    fn check_rollback(&self) -> Result<(), ReleaseError> {
        match (self.status, self.slug) {
            (_, None) => Err(ReleaseError::NoSlug(self.version)),
            (ReleaseStatus::Succeeded, Some(_)) => Ok(()),
            (ReleaseStatus::Failed, _) => Err(ReleaseError::NotEligible(self.version, "failed")),
            (ReleaseStatus::Pending, _) => Err(ReleaseError::NotEligible(self.version, "has not finished yet")),
        }
    }
}

/// The patch without what add-ons bring: clients that send all config vars back send those too, as they are.
fn beside(patch: &ConfigPatch, attached: &ConfigVars) -> Result<ConfigPatch, ReleaseError> {
    let is_attached = |key: &String| attached.get(key).is_some();
    let overwrites =
        |(key, value): &(&String, &Option<String>)| is_attached(key) && attached.get(key) != value.as_deref();
    let taken: Vec<&str> = patch.iter().filter(overwrites).map(|(key, _)| key.as_str()).collect();
    if !taken.is_empty() {
        return Err(ReleaseError::Attached(taken.join(", ")));
    }
    Ok(patch.iter().filter(|(key, _)| !is_attached(key)).map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// `Deploy 1a2b3c4d`, eight hex digits of a commit; another version as the client wrote it.
fn deploy_description(commit: Option<&str>) -> String {
    match commit {
        Some(commit) if commit.len() >= 8 && commit.bytes().all(|b| b.is_ascii_hexdigit()) => {
            format!("Deploy {}", &commit[..8])
        }
        Some(version) if !version.is_empty() => format!("Deploy {}", version.chars().take(80).collect::<String>()),
        _ => "Deploy".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::actor::AccountId;
    use uuid::Uuid;

    fn next(history: History<'_>, change: &Change<'_>) -> Result<Release, ReleaseError> {
        let actor = Actor { id: AccountId(Uuid::nil()), email: "a@b".into() };
        Release::next(ReleaseId(Uuid::nil()), AppId(Uuid::nil()), history, change, actor, Timestamp::UNIX_EPOCH)
    }

    fn patch(key: &str, value: Option<&str>) -> ConfigPatch {
        [(key.to_owned(), value.map(str::to_owned))].into()
    }

    fn deploy(slug: SlugId, commit: Option<&str>) -> Change<'_> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        Change::Deploy { slug, commit, defaults: NONE }
    }

    fn settled(release: Release, status: ReleaseStatus) -> Release {
        Release { status, ..release }
    }

    #[test]
    fn an_app_begins_as_on_heroku() {
        let v1 = next(History::default(), &Change::Initial).unwrap();
        let v2 = next(History { newest: Some(&v1), standing: Some(&v1) }, &Change::EnableLogplex).unwrap();
        assert_eq!((v1.version, v1.description.as_str(), v1.status), (1, "Initial release", ReleaseStatus::Succeeded));
        assert_eq!((v2.version, v2.description.as_str()), (2, "Enable Logplex"));
        assert_eq!(
            next(History { newest: Some(&v2), standing: Some(&v2) }, &Change::Rollback(&v2)),
            Err(ReleaseError::NoSlug(2))
        );
    }

    #[test]
    fn config_builds_on_the_newest_and_code_on_the_last_good_one() {
        let (good, bad) = (SlugId(Uuid::from_u128(1)), SlugId(Uuid::from_u128(2)));
        let v1 = next(History::default(), &deploy(good, Some("1a2b3c4d5e6f"))).unwrap();
        assert_eq!((v1.description.as_str(), v1.status), ("Deploy 1a2b3c4d", ReleaseStatus::Pending));
        let v1 = settled(v1, ReleaseStatus::Succeeded);
        let v2 =
            next(History { newest: Some(&v1), standing: Some(&v1) }, &Change::Config(&patch("A", Some("1")))).unwrap();
        let v2 = settled(v2, ReleaseStatus::Failed);
        let v3 = next(History { newest: Some(&v2), standing: Some(&v1) }, &deploy(bad, None)).unwrap();
        let v3 = settled(v3, ReleaseStatus::Failed);
        let v4 =
            next(History { newest: Some(&v3), standing: Some(&v1) }, &Change::Config(&patch("B", Some("2")))).unwrap();
        assert_eq!((v4.version, v4.slug), (4, Some(good)));
        assert_eq!(v4.config.iter().collect::<Vec<_>>(), [("A", "1"), ("B", "2")]);
        assert_eq!(
            next(History { newest: Some(&v4), standing: Some(&v1) }, &Change::Config(&patch("B", Some("2")))),
            Err(ReleaseError::NoChange)
        );
    }

    #[test]
    fn what_add_ons_bring_can_be_sent_back_and_not_be_overwritten() {
        let attached: ConfigVars = [("DB_URL".to_owned(), "a://b".to_owned())].into_iter().collect();
        let change =
            Change::Addons { attached, plans: vec!["external:url".into()], description: "Attach DB (@ref:db)" };
        let v1 = next(History::default(), &change).unwrap();
        let history = History { newest: Some(&v1), standing: Some(&v1) };
        let all = [("DB_URL".to_owned(), Some("a://b".to_owned())), ("A".to_owned(), Some("1".to_owned()))].into();
        let v2 = next(history, &Change::Config(&all)).unwrap();
        assert_eq!(
            (v2.config.iter().collect::<Vec<_>>(), v2.description.as_str()),
            (vec![("A", "1")], "Set A config vars")
        );
        assert_eq!(v2.vars().iter().collect::<Vec<_>>(), [("A", "1"), ("DB_URL", "a://b")]);
        assert_eq!(next(history, &Change::Config(&patch("DB_URL", Some("a://b")))), Err(ReleaseError::NoChange));
        for value in [None, Some("c://d")] {
            let refused = next(history, &Change::Config(&patch("DB_URL", value)));
            assert_eq!(refused, Err(ReleaseError::Attached("DB_URL".into())));
        }
        assert_eq!(v2.addons, ["external:url"]);
    }

    #[test]
    fn code_may_bring_config_vars_for_those_without_a_value() {
        let v1 = next(History::default(), &Change::Config(&patch("SET", Some("by the owner")))).unwrap();
        let defaults = [("SET", "by the code"), ("NEW", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let change = Change::Deploy { slug: SlugId(Uuid::nil()), commit: None, defaults: &defaults };
        let v2 = next(History { newest: Some(&v1), standing: Some(&v1) }, &change).unwrap();
        assert_eq!(v2.config.iter().collect::<Vec<_>>(), [("NEW", "1"), ("SET", "by the owner")]);
        let defaults = [("PORT".to_owned(), "1".to_owned())].into();
        let change = Change::Deploy { slug: SlugId(Uuid::nil()), commit: None, defaults: &defaults };
        assert!(matches!(next(History::default(), &change), Err(ReleaseError::Config(_))));
    }

    #[test]
    fn rollback_restores_code_and_config_of_a_release_that_worked() {
        let slug = SlugId(Uuid::from_u128(1));
        let v1 = settled(next(History::default(), &deploy(slug, None)).unwrap(), ReleaseStatus::Succeeded);
        let v2 =
            next(History { newest: Some(&v1), standing: Some(&v1) }, &Change::Config(&patch("A", Some("1")))).unwrap();
        assert!(matches!(
            next(History { newest: Some(&v2), standing: Some(&v1) }, &Change::Rollback(&v2)),
            Err(ReleaseError::NotEligible(2, _))
        ));
        let v3 = next(History { newest: Some(&v2), standing: Some(&v1) }, &Change::Rollback(&v1)).unwrap();
        assert_eq!((v3.version, v3.description.as_str(), v3.slug), (3, "Rollback to v1", Some(slug)));
        assert!(v3.config.is_empty());
    }
}
