//! Errors of the launch path: which step, on what, what the kernel said, and what to do about it.
#![forbid(unsafe_code)]

use super::remedy::{ADVICE, remedy};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Display;
use std::io;

/// A step that failed. It crosses process borders, so the cause is text already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{step} ({object}): {}", self.why())]
pub struct StepError {
    pub step: String,
    /// The file, mount or limit in question.
    pub object: String,
    pub cause: String,
    /// What to do about it, where that is known; a process of an older version says none.
    #[serde(default)]
    pub advice: Option<String>,
    /// The kernel's word, if it was the kernel who refused.
    #[serde(default)]
    errno: Option<i32>,
}

impl StepError {
    pub fn new(step: &str, object: impl Display, cause: impl Display) -> Self {
        Self::with_errno(step, object, cause, None)
    }

    /// With everything that led to it.
    pub(super) fn caused(step: &str, object: impl Display, error: &(dyn Error + 'static)) -> Self {
        let causes: Vec<_> = std::iter::successors(Some(error), |&error| error.source()).collect();
        let errno = causes.iter().find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
        let cause = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self::with_errno(step, object, cause, errno)
    }

    fn with_errno(step: &str, object: impl Display, cause: impl Display, errno: Option<i32>) -> Self {
        let object = object.to_string();
        let advice = remedy(step, &object, errno).map(str::to_owned);
        Self { step: step.to_owned(), object, cause: cause.to_string(), advice, errno }
    }

    pub(super) fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The cause, and the advice if there is any.
    pub(super) fn why(&self) -> String {
        match &self.advice {
            Some(advice) => format!("{}{ADVICE}{advice}", self.cause),
            None => self.cause.clone(),
        }
    }
}

/// Says what was being done when `result` is an error.
pub(super) fn step<T>(
    doing: &str,
    object: impl Display,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, StepError> {
    result.map_err(|error| {
        let error: io::Error = error.into();
        let errno = error.raw_os_error();
        StepError::with_errno(doing, object, error, errno)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_about_it_and_keeps_it_on_the_way_to_another_process() {
        let refused: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let error = step("make the user namespace", "id mappings", refused).unwrap_err();
        assert_eq!(
            error.to_string(),
            "make the user namespace (id mappings): No space left on device (os error 28) -> \
             raise sysctl user.max_user_namespaces (0 switches them off)"
        );
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<StepError>(&text).unwrap(), error);
        let older = r#"{"step":"s","object":"o","cause":"c"}"#;
        assert_eq!(serde_json::from_str::<StepError>(older).unwrap().to_string(), "s (o): c");
    }

    #[test]
    fn advice_is_found_behind_what_led_to_an_error() {
        let source = io::Error::from_raw_os_error(libc::EROFS);
        let error = crate::sys::cgroup::CgroupError::Make { path: "/x".into(), source };
        let error = StepError::caused("make the cgroup", "dyno-1", &error);
        assert!(error.advice.unwrap().contains("Delegate=yes"));
        assert_eq!(error.cause, "cannot make the group /x: Read-only file system (os error 30)");
    }
}
