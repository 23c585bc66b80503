//! What a dyno runs, in the form that exec takes.
#![forbid(unsafe_code)]

use super::step::{StepError, step};
use crate::sys::process;
use oci_spec::runtime::Spec;
use std::convert::Infallible;
use std::ffi::CString;
use std::io;

/// Arguments, environment, and where the command could be, as the shell would look for it in the dyno's own `PATH`.
pub(super) struct Program {
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    candidates: Vec<CString>,
}

impl Program {
    /// The program of a configuration, with `env` besides the environment that is written there.
    pub(super) fn new(spec: &Spec, env: &[(String, String)]) -> Result<Self, StepError> {
        let arguments = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
        Self::of(arguments, spec, env)
    }

    /// Another in the environment of a configuration's.
    pub(super) fn of(arguments: &[String], spec: &Spec, env: &[(String, String)]) -> Result<Self, StepError> {
        let process = spec.process().as_ref();
        let name = arguments.first().ok_or_else(|| StepError::new(START, "args", "there is no command"))?;
        let mut environment: Vec<String> =
            process.iter().flat_map(|process| process.env().iter().flatten().cloned()).collect();
        environment.extend(env.iter().map(|(key, value)| format!("{key}={value}")));
        Ok(Self {
            name: name.clone(),
            candidates: strings(&candidates(name, &environment))?,
            arguments: strings(arguments)?,
            environment: strings(&environment)?,
        })
    }

    /// Returns only when it can't be started.
    pub(super) fn exec(&self) -> Result<Infallible, StepError> {
        let mut error = io::Error::from_raw_os_error(libc::ENOENT);
        for path in &self.candidates {
            let tried = process::exec(path, &self.arguments, &self.environment);
            if tried.kind() != io::ErrorKind::NotFound {
                error = tried;
            }
        }
        step(START, &self.name, Err(error))
    }
}

const START: &str = "start the program";

fn strings(texts: &[impl AsRef<str>]) -> Result<Vec<CString>, StepError> {
    let nul = |_| StepError::new(START, "arguments and environment", "a text contains a NUL byte");
    texts.iter().map(|text| CString::new(text.as_ref()).map_err(nul)).collect()
}

fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':').filter(|dir| !dir.is_empty()).map(|dir| format!("{}/{name}", dir.trim_end_matches('/'))).collect()
}
