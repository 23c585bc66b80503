//! Errors of the launch path: which step, on what, and what the kernel said.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io;

/// A step that failed. It crosses process borders, so the cause is text already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{step} ({object}): {cause}")]
pub struct StepError {
    pub step: String,
    /// The file, mount or limit in question.
    pub object: String,
    pub cause: String,
}

impl StepError {
    pub fn new(step: &str, object: impl Display, cause: impl Display) -> Self {
        Self { step: step.to_owned(), object: object.to_string(), cause: cause.to_string() }
    }
}

/// Says what was being done when `result` is an error.
pub(super) fn step<T>(
    doing: &str,
    object: impl Display,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, StepError> {
    result.map_err(|error| StepError::new(doing, object, error.into()))
}
