//! What the store wants of an app, and what the planner's verdicts write there.
#![forbid(unsafe_code)]

use crate::domain::app::{App, AppId};
use crate::domain::feature::Feature;
use crate::domain::formation::Formation;
use crate::domain::plan::{Code, Pending, Replacement, Want};
use crate::domain::release::{Release, ReleaseStatus};
use crate::store::{self, StoreError, Tx};
use jiff::Timestamp;

/// Everything the store says about an app.
pub(super) struct Wanted {
    pub(super) app: App,
    pub(super) want: Want,
    pub(super) pending: Option<Release>,
    /// Names at which it is reached, beside its own.
    pub(super) hosts: Vec<String>,
}

/// What becomes of a pending release.
#[derive(Clone)]
pub(super) enum Verdict {
    PhasePassed,
    Promoted,
    Failed(String),
}

pub(super) fn settle(tx: &Tx<'_>, app: AppId, version: u32, verdict: &Verdict) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let Some(release) = store::releases::by_version(tx, app, version)? else { return Ok(()) };
    match verdict {
        Verdict::PhasePassed => store::releases::pass_phase(tx, release.id, now),
        Verdict::Failed(reason) => {
            store::releases::settle(tx, release.id, ReleaseStatus::Failed, Some(reason), now)?;
            fail_those_built_on(tx, &release, now)
        }
        Verdict::Promoted => {
            let formation = formation_with(tx, app, &release)?;
            store::formations::put(tx, app, &formation)?;
            store::apps::set_released_at(tx, app, now)?;
            store::releases::settle(tx, release.id, ReleaseStatus::Succeeded, None, now)?;
            Ok(())
        }
    }
}

/// Releases made while `failed` was still on its way carry its code; they must not bring it back.
fn fail_those_built_on(tx: &Tx<'_>, failed: &Release, now: Timestamp) -> Result<(), StoreError> {
    let serving = store::releases::current(tx, failed.app)?.and_then(|release| release.slug);
    if failed.slug == serving {
        return Ok(());
    }
    let reason = format!("it builds on the code of v{}, which failed", failed.version);
    for release in store::releases::list(tx, failed.app)? {
        if release.status == ReleaseStatus::Pending && release.slug == failed.slug {
            store::releases::settle(tx, release.id, ReleaseStatus::Failed, Some(&reason), now)?;
        }
    }
    Ok(())
}

/// The formation as it is once `release` serves.
fn formation_with(tx: &Tx<'_>, app: AppId, release: &Release) -> Result<Formation, StoreError> {
    let first = store::releases::current(tx, app)?.is_none_or(|current| current.slug.is_none());
    let formation = store::formations::get(tx, app)?;
    let types = match release.slug {
        Some(slug) => store::slugs::get(tx, slug)?.map(|slug| slug.process_types).unwrap_or_default(),
        None => return Ok(formation),
    };
    Ok(formation.adapt(&types, first))
}

pub(super) fn wanted(tx: &Tx<'_>, id: AppId) -> Result<Option<Wanted>, StoreError> {
    let Some(app) = store::apps::get(tx, id)? else { return Ok(None) };
    let pending = store::releases::oldest_pending(tx, id)?;
    let want = Want {
        current: current_code(tx, id)?,
        pending: match &pending {
            Some(release) => Some(Pending {
                code: code_of(tx, release)?,
                phase_passed: release.phase_passed,
                formation: formation_with(tx, id, release)?,
            }),
            None => None,
        },
        formation: store::formations::get(tx, id)?,
        epochs: store::epochs::get(tx, id)?,
        replacement: if store::features::get(tx, id)?.contains_key(&Feature::HoldAndSwap) {
            Replacement::Swap
        } else {
            Replacement::Overlap
        },
    };
    let hosts = store::domains::list(tx, id)?.into_iter().map(|domain| domain.hostname.to_string()).collect();
    Ok(Some(Wanted { app, want, pending, hosts }))
}

pub(super) fn current_code(tx: &Tx<'_>, app: AppId) -> Result<Option<Code>, StoreError> {
    match store::releases::current(tx, app)?.filter(|release| release.slug.is_some()) {
        Some(release) => code_of(tx, &release).map(Some),
        None => Ok(None),
    }
}

fn code_of(tx: &Tx<'_>, release: &Release) -> Result<Code, StoreError> {
    let slug = match release.slug {
        Some(slug) => store::slugs::get(tx, slug)?,
        None => None,
    };
    Ok(Code { version: release.version, types: slug.map(|slug| slug.process_types).unwrap_or_default() })
}
