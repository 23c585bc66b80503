//! Does this machine have what hokku needs? Every check says what was found and, where something is missing, how to get
//! it. What the kernel can do is tried, not looked up: versions and configuration files promise more than they keep.
//!
//! Then a dyno is launched, in an instance of its own. Nothing is changed and nothing is left behind. How it is shown is
//! up to the caller.
#![forbid(unsafe_code)]

mod firewall;
mod kernel;
mod machine;
mod trial;

pub use trial::{TrialError, launch as trial_launch};

use serde::Serialize;
use std::error::Error;
use std::path::Path;

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What to do about it, or to keep in mind.
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, but not as well as it could, or could not be tried.
    Warning,
    /// Dynos cannot run like this.
    Missing,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Missing, found: found.into(), advice: Some(advice.into()) }
    }

    fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Looks at everything, for a server whose state is or will be in `root`, and launches a dyno by
/// `program`, the hokku binary. Takes a few seconds at most. Without root privileges, what needs them is left out and a
/// warning says so.
pub fn examine(root: &Path, program: &Path) -> Vec<Check> {
    let privileges = machine::privileges();
    let is_root = privileges.status == Status::Ok;
    let mut checks = vec![privileges, kernel::version(), kernel::seccomp()];
    if is_root {
        checks.extend([kernel::user_namespaces(), kernel::overlay(), kernel::id_mapped_mounts(root)]);
        checks.extend(kernel::cgroups());
        checks.extend([kernel::network_namespaces(), firewall::nft()]);
        checks.extend(firewall::foreign());
        checks.push(machine::writable_layers(root));
        checks.push(trial::check(root, program));
    }
    checks.extend([
        machine::resolvers(),
        machine::git(),
        machine::disk(root),
        machine::memory(),
        machine::share(root),
        machine::run(),
    ]);
    checks.extend(machine::key(root));
    checks
}

/// An error and what caused it, in one line.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = std::io::Error::other("the reason");
        let error = crate::sys::cgroup::CgroupError::Read { path: "/x".into(), source: error };
        assert_eq!(told(&error), "cannot read /x: the reason");
    }
}
