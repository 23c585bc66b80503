//! The buildpacks an app is built with.
#![forbid(unsafe_code)]

use super::{Control, ControlError};
use crate::build::Buildpack;
use crate::domain::app::AppId;
use crate::store;

/// In the order they run; empty until the first build pins what it detected.
///
/// # Errors
/// When the store can't be read.
pub async fn get(control: &Control, app: AppId) -> Result<Vec<String>, ControlError> {
    control.store.read(move |tx| Ok(store::buildpacks::get(tx, app)?)).await
}

/// Replaces the whole list, for the next build.
///
/// # Errors
/// When one is neither a URL nor a directory nor a name that we know, or is there twice.
pub async fn put(control: &Control, app: AppId, urls: Vec<String>) -> Result<Vec<String>, ControlError> {
    check(&urls)?;
    let kept = urls.clone();
    control.store.write(move |tx| Ok::<_, ControlError>(store::buildpacks::put(tx, app, &urls)?)).await?;
    Ok(kept)
}

/// # Errors
/// When one is neither a URL nor a directory nor a name that we know, or is there twice.
pub fn check(urls: &[String]) -> Result<(), ControlError> {
    if urls.len() > 20 {
        return Err(ControlError::Invalid("An app can have at most 20 buildpacks.".into()));
    }
    for (index, url) in urls.iter().enumerate() {
        Buildpack::parse(url).map_err(|error| ControlError::Invalid(format!("{error}.")))?;
        if urls[..index].contains(url) {
            return Err(ControlError::Invalid(format!("The buildpack {url} is there twice.")));
        }
    }
    Ok(())
}
