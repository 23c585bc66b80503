//! Placeholder: the host checks, with the signature the CLI is written against.
#![forbid(unsafe_code)]

use std::path::Path;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Warning,
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub status: Status,
    pub found: String,
    pub advice: Option<String>,
}

/// Looks at the host; `root` is the instance's directory when there is one.
pub fn examine(_root: Option<&Path>) -> Vec<Check> {
    Vec::new()
}
