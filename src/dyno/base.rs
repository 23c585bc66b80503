//! What all launches share. Shims have it from the launcher by fork.
#![forbid(unsafe_code)]

use super::scratch::Scratch;
use super::spec::{Config, Filter, Standard};
use super::step::{StepError, step};
use super::{instances, policy, shape, spec};
use crate::domain::instance::Instance;
use crate::sys::cgroup::{GroupLimits, Hierarchy};
use crate::sys::process::Title;
use crate::sys::seccomp::{self, Program};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use std::borrow::Cow;

pub(super) struct Base {
    pub(super) hierarchy: Hierarchy,
    pub(super) standard: Standard,
    pub(super) limits: GroupLimits,
    pub(super) scratch: Scratch,
    sample: String,
    filter: Program,
    title: Option<Title>,
}

impl Base {
    /// With `on_disk`, writable layers are kept in ROOT if that can be.
    pub(super) fn prepare(instance: &Instance, on_disk: bool) -> Result<Self, StepError> {
        let hierarchy = instances::hierarchy(instance);
        let hierarchy = hierarchy.map_err(|error| StepError::caused("find the control groups", "mounts", &error))?;
        let policy = serde_json::from_str(policy::text()).expect("our own policy has the shape of OCI's");
        let sample = spec::sample(instance);
        let config = step("read a configuration", "sample", Config::parse(&sample))?;
        let (standard, limits) = (Standard::of(&config.spec), shape::limits(&config.spec)?);
        let bounds = shape::bounds(&config.spec)?;
        let scratch = if on_disk { Scratch::new(instance, bounds) } else { Scratch::in_memory() };
        Ok(Self { hierarchy, standard, limits, scratch, sample, filter: compile(&policy)?, title: None })
    }

    /// From now on this process and its children show in `ps` what they are.
    pub(super) fn with_title(self, title: Option<Title>) -> Self {
        Self { title, ..self }
    }

    /// `hokku-shim web.1 of my-app`
    pub(super) fn show(&self, role: &str, spec: &Spec) {
        let word = |key| spec::note(spec, key).unwrap_or("?");
        self.show_waiting(&format!("{role} {} of {}", word(spec::NAME), word(spec::APP)));
    }

    pub(super) fn show_waiting(&self, text: &str) {
        if let Some(title) = self.title {
            title.set(text);
        }
    }

    /// Reads a configuration as if it were for a launch: a process pays for each page of code and memory when it first
    /// touches it, and one that waits has the time.
    pub(super) fn practise(&self) {
        let _ = Config::parse(&self.sample);
    }

    /// What a configuration asks for, compiled.
    pub(super) fn filter(&self, wanted: &Filter) -> Result<Option<Cow<'_, Program>>, StepError> {
        match wanted {
            Filter::None => Ok(None),
            Filter::Ours => Ok(Some(Cow::Borrowed(&self.filter))),
            Filter::Other(policy) => compile(policy).map(Cow::Owned).map(Some),
        }
    }
}

fn compile(policy: &LinuxSeccomp) -> Result<Program, StepError> {
    let policy = policy::read(policy);
    let policy = policy.map_err(|error| StepError::new("read the system call policy", "seccomp", error))?;
    Ok(seccomp::compile(&policy))
}
