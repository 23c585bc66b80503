//! Slugs.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::app::AppId;
use crate::domain::slug::{Slug, SlugId};
use crate::store;

/// # Errors
/// When the app has no such slug.
pub async fn find(control: &Control, app: AppId, id: &str) -> Result<Slug, ControlError> {
    let missing = || ControlError::NotFound(Resource::Slug);
    let id: SlugId = id.parse().map_err(|_| missing())?;
    let slug: Option<Slug> = control.store.read(move |tx| Ok::<_, ControlError>(store::slugs::get(tx, id)?)).await?;
    slug.filter(|slug| slug.app == app).ok_or_else(missing)
}
