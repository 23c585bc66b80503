//! What has to be known of a dyno before its pid 1 is born: its namespaces, its link, its control group.
#![forbid(unsafe_code)]

use super::scratch::Bounds;
use super::step::{StepError, step};
use super::{network, spec};
use crate::domain::instance::Instance;
use crate::sys::cgroup::GroupLimits;
use crate::sys::process::SingleThreaded;
use crate::sys::userns::{self, Mapping, Nesting};
use oci_spec::runtime::{LinuxCpu, LinuxNamespaceType, Spec};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The shape of a dyno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `CLONE_NEW*` of the namespaces that pid 1 is born in. The network's is not among them when it has a link.
    pub(super) clone_flags: i32,
    pub(super) own_cgroup_namespace: bool,
    /// Without one it stays in the host's user namespace.
    pub(super) mappings: Option<Vec<Mapping>>,
    pub(super) nesting: Nesting,
    /// The slot whose routed link it has.
    pub(super) link: Option<u16>,
    /// The group's parent and name.
    pub(super) group: (String, String),
}

impl Shape {
    /// Of a dyno in `slot`, as the server asks for them.
    pub(super) fn of_slot(instance: &Instance, slot: u16) -> Self {
        Self {
            clone_flags: libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
            own_cgroup_namespace: true,
            mappings: Some(vec![Mapping { inside: 0, outside: instance.dyno_uid_base(slot), size: spec::IDS }]),
            nesting: Nesting::Forbidden,
            link: Some(slot),
            group: (instance.cgroup(), instance.group(slot)),
        }
    }

    /// As a configuration asks for it.
    pub(super) fn of(spec: &Spec) -> Result<Self, StepError> {
        let link = if spec::note(spec, spec::NETWORK) == Some("routed") {
            let slot = spec::number(spec, spec::SLOT);
            Some(slot.ok_or_else(|| StepError::new("make the network", "slot", "the configuration names none"))?)
        } else {
            None
        };
        let has = |kind| spec::has_namespace(spec, kind);
        let clone_flags = clone_flags(spec, link.is_some());
        if clone_flags & libc::CLONE_NEWNS == 0 || clone_flags & libc::CLONE_NEWPID == 0 {
            return Err(StepError::new("clone pid 1", "namespaces", "mount and pid can't be left out"));
        }
        Ok(Self {
            clone_flags,
            own_cgroup_namespace: has(LinuxNamespaceType::Cgroup),
            mappings: has(LinuxNamespaceType::User).then(|| mappings(spec)),
            nesting: spec::nesting(spec)?,
            link,
            group: group(spec)?,
        })
    }

    /// The dear namespaces, of which each takes longer than all the rest of a start.
    pub(super) fn make_ahead(&self, single: &SingleThreaded, instance: &Instance) -> Result<Ahead, StepError> {
        let network = self.link.map(|slot| {
            let made = network::prepare(instance, slot);
            made.map_err(|error| StepError::caused("make the network", instance.link(slot), &error))
        });
        let users = self.mappings.as_ref().map(|mappings| {
            let made = userns::make(single, mappings, self.nesting);
            step("make the user namespace", "id mappings", made)
        });
        Ok(Ahead { network: network.transpose()?, users: users.transpose()? })
    }

    /// What the dyno's user 0 is on the host.
    pub(super) fn first_id(&self) -> u32 {
        self.mappings.iter().flatten().next().map_or(0, |mapping| mapping.outside)
    }
}

/// Namespaces that are made before pid 1 and entered by it.
pub(super) struct Ahead {
    pub(super) network: Option<OwnedFd>,
    pub(super) users: Option<OwnedFd>,
}

/// The configuration's namespaces, as far as they are not there already. They belong to the host's user namespace, as
/// the mounts made in them do: the dyno's own is entered last, and rules over nothing. The cgroup's is pid 1's own
/// business, once it is in its group.
fn clone_flags(spec: &Spec, linked: bool) -> i32 {
    let mut flags = 0;
    for namespace in spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
        flags |= match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Network if !linked => libc::CLONE_NEWNET,
            LinuxNamespaceType::User | LinuxNamespaceType::Network | LinuxNamespaceType::Cgroup => 0,
            LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
        };
    }
    flags
}

fn mappings(spec: &Spec) -> Vec<Mapping> {
    let mappings = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
    let mapping = |m: &oci_spec::runtime::LinuxIdMapping| Mapping {
        inside: m.container_id(),
        outside: m.host_id(),
        size: m.size(),
    };
    mappings.into_iter().flatten().map(mapping).collect()
}

/// The group's parent and name in a configuration.
pub(super) fn group(spec: &Spec) -> Result<(String, String), StepError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()).unwrap_or(Path::new("/"));
    let parent = path.parent().and_then(|parent| parent.strip_prefix("/").ok()).and_then(Path::to_str);
    let name = path.file_name().and_then(|name| name.to_str());
    match (parent.filter(|parent| !parent.is_empty()), name) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(StepError::new("make the cgroup", path.display(), "the path has to be /PARENT/NAME")),
    }
}

/// What a configuration's writable layer may have.
pub(super) fn bounds(spec: &Spec) -> Result<Bounds, StepError> {
    let bytes = spec::root_size(spec)?;
    let memory = spec::memory_quota(spec).unwrap_or(bytes);
    Ok(Bounds { bytes, memory })
}

/// A configuration's limits.
pub(super) fn limits(spec: &Spec) -> Result<GroupLimits, StepError> {
    let wrong = |what: &str| StepError::new("limit the dyno", "resources", what);
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let resources = resources.ok_or_else(|| wrong("there are no limits"))?;
    let memory = resources.memory().as_ref().and_then(|memory| memory.swap().or(memory.limit()));
    let cpu = resources.cpu().as_ref();
    let percent =
        |quota: i64, period: u64| u32::try_from(quota * 100 / i64::try_from(period).unwrap_or(i64::MAX).max(1)).ok();
    let pids = resources.pids().as_ref();
    Ok(GroupLimits {
        memory_max: memory.and_then(|limit| u64::try_from(limit).ok()).ok_or_else(|| wrong("memory is not limited"))?,
        memory_high: None,
        shares: cpu.and_then(LinuxCpu::shares).unwrap_or(1024) * 100 / 1024,
        cpu_quota_percent: cpu.and_then(|cpu| cpu.quota().zip(cpu.period())).and_then(|(q, p)| percent(q, p)),
        pids: pids
            .and_then(|pids| u64::try_from(pids.limit()).ok())
            .ok_or_else(|| wrong("processes are not limited"))?,
    })
}
