//! The box's store of runtimes.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::slug::SlugError;
use crate::stack::runtimes::{Kept, Runtime, RuntimeError};
use std::io;

/// What a client wants kept.
#[derive(Clone, Debug)]
pub struct NewRuntime {
    /// Of the upload.
    pub secret: String,
    pub checksum: Option<String>,
    /// What the file is called; tells the other two where they are missing.
    pub file: String,
    pub language: Option<String>,
    pub version: Option<String>,
}

/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control) -> Result<Vec<Kept>, ControlError> {
    let runtimes = control.stacks.runtimes().clone();
    Ok(tokio::task::spawn_blocking(move || runtimes.list()).await.map_err(io::Error::other)??)
}

/// # Errors
/// When nothing was uploaded, it is no runtime, or that one is there already.
pub async fn import(control: &Control, new: NewRuntime) -> Result<Kept, ControlError> {
    let archive = control.sources.take(&new.secret, new.checksum.as_deref())?;
    let runtimes = control.stacks.runtimes().clone();
    let imported = tokio::task::spawn_blocking(move || {
        let imported = which(&new).and_then(|runtime| runtimes.import(&archive, runtime));
        // Unpacked or refused, the upload is of no more use.
        let _ = std::fs::remove_file(&archive);
        imported
    });
    imported.await.map_err(io::Error::other)?.map_err(refuse)
}

fn which(new: &NewRuntime) -> Result<Runtime, RuntimeError> {
    match (&new.language, &new.version) {
        (Some(language), Some(version)) => Runtime::new(language, version),
        (language, version) => {
            let told = Runtime::of_file(&new.file)?;
            Runtime::new(language.as_ref().unwrap_or(&told.language), version.as_ref().unwrap_or(&told.version))
        }
    }
}

/// # Errors
/// When there is no such runtime.
pub async fn remove(control: &Control, language: &str, version: &str) -> Result<(), ControlError> {
    let runtime = Runtime::new(language, version).map_err(refuse)?;
    let runtimes = control.stacks.runtimes().clone();
    let removed = tokio::task::spawn_blocking(move || runtimes.remove(&runtime));
    removed.await.map_err(io::Error::other)?.map_err(|error| match error {
        RuntimeError::Absent { .. } => ControlError::NotFound(Resource::Runtime),
        error => refuse(error),
    })
}

fn refuse(error: RuntimeError) -> ControlError {
    match error {
        RuntimeError::Io(error) if error.kind() == io::ErrorKind::StorageFull => ControlError::DiskFull,
        RuntimeError::Io(error) => error.into(),
        RuntimeError::Archive(SlugError::Unpack(message)) if message.contains("os error 28") => ControlError::DiskFull,
        error => {
            let text = error.to_string();
            let mut letters = text.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            ControlError::Invalid(first.into_iter().chain(letters).chain(['.']).collect())
        }
    }
}
