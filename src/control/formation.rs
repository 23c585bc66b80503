//! The formation: how many dynos of which size.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::dyno::DynoName;
use crate::domain::formation::{Formation, FormationError, Scale, Update};
use crate::domain::procfile::ProcessType;
use crate::store::formations::FormationRow;
use crate::store::{self, StoreError, Tx};

/// One process type with the command it runs.
#[derive(Clone, Debug)]
pub struct FormationView {
    pub row: FormationRow,
    pub command: String,
}

/// By process type.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<FormationView>, ControlError> {
    control.store.read(move |tx| Ok(views(tx, app)?)).await
}

/// # Errors
/// When the app has no such process type.
pub async fn find(control: &Control, app: AppId, kind: &ProcessType) -> Result<FormationView, ControlError> {
    let rows = list(control, app).await?;
    rows.into_iter().find(|view| view.row.kind == *kind).ok_or(ControlError::NotFound(Resource::ProcessType))
}

fn views(tx: &Tx<'_>, app: AppId) -> Result<Vec<FormationView>, StoreError> {
    let current = store::releases::current(tx, app)?;
    let slug = current.and_then(|release| release.slug).map(|id| store::slugs::get(tx, id)).transpose()?;
    let commands = slug.flatten().map(|slug| slug.process_types).unwrap_or_default();
    let rows = store::formations::rows(tx, app)?;
    let view = |row: FormationRow| FormationView { command: commands.get(&row.kind).cloned().unwrap_or_default(), row };
    Ok(rows.into_iter().map(view).collect())
}

/// Scales, and answers the rows that were named.
///
/// # Errors
/// When a row names an unknown type or an impossible quantity; then nothing is changed.
pub async fn scale(
    control: &Control,
    actor: &Actor,
    app: AppId,
    updates: Vec<Update>,
) -> Result<Vec<FormationView>, ControlError> {
    let (views, changed) = control
        .store
        .write(move |tx| {
            let before = store::formations::get(tx, app)?;
            let after = before.update(&updates).map_err(|error| match error {
                FormationError::UnknownType(_) => ControlError::NotFound(Resource::ProcessType),
                error => error.into(),
            })?;
            store::formations::put(tx, app, &after)?;
            // A dyno keeps the limits it was born with, so those of another size are replaced.
            store::epochs::bump(tx, app, &resized(&before, &after))?;
            let mut named = views(tx, app)?;
            named.retain(|view| updates.iter().any(|update| update.kind == view.row.kind));
            Ok::<_, ControlError>((named, before != after))
        })
        .await?;
    if changed {
        let line: Vec<String> = views.iter().map(|view| scaled(&view.row.kind, view.row.scale)).collect();
        control.log(app, format!("Scaled to {} by user {}", line.join(" "), actor.email));
        control.supervisor.wake(app);
    }
    Ok(views)
}

/// `web@2:Basic`
fn scaled(kind: &ProcessType, scale: Scale) -> String {
    format!("{kind}@{}:{}", scale.quantity, scale.size)
}

fn resized(before: &Formation, after: &Formation) -> Vec<DynoName> {
    let differs =
        |(kind, scale): &(&ProcessType, &Scale)| before.0.get(*kind).is_some_and(|old| old.size != scale.size);
    after.0.iter().filter(differs).flat_map(|(kind, scale)| names(kind, *scale)).collect()
}

/// The dynos that a row of a formation stands for.
pub(super) fn names(kind: &ProcessType, scale: Scale) -> impl Iterator<Item = DynoName> + use<> {
    let kind = kind.clone();
    (1..=scale.quantity).map(move |number| DynoName::new(kind.clone(), number))
}
