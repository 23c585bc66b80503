//! Which controller is where on this host, and below which directories groups are made.

use super::files::read;
use super::{CgroupError, Controller};
use std::fs;
use std::path::{Path, PathBuf};

/// What systemd marks the groups with that it has delegated: the second since its version 251.
const DELEGATED: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// What the Java virtual machine wants to see beside memory and cpu (`CgroupSubsystemFactory` of `OpenJDK`).
const FOR_SHOW: [&str; 2] = ["cpuset", "cpuacct"];

/// Which controller is where on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The version 2 directory below which parents are made: its mount point, or a delegated group.
    pub(super) v2: Option<PathBuf>,
    /// That group, from the root of version 2: it is ours, with the processes in it.
    delegated: Option<PathBuf>,
    /// Mount points of the controllers that are on version 1, in the order of [`Controller::ALL`].
    pub(super) v1: Vec<(Controller, PathBuf)>,
    /// The version 1 CPU accounting, wanted only where no version 2 group counts CPU time.
    pub(super) cpuacct: Option<PathBuf>,
    /// Where the version 1 hierarchies are that limit nothing, but without which runtimes believe in none.
    pub(super) for_show: Vec<PathBuf>,
}

impl Hierarchy {
    /// Looks at the mounts of this process. Fails when memory, cpu or pids is nowhere.
    pub fn detect() -> Result<Self, CgroupError> {
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let on_v2 = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Self::from_mounts(&mounts, on_v2)
    }

    fn from_mounts(mountinfo: &str, controllers_of: impl Fn(&Path) -> String) -> Result<Self, CgroupError> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.clone());
        let on_v2 = v2.as_deref().map(&controllers_of).unwrap_or_default();
        let on_v1 = |name: &str| mounts.iter().find(|mount| mount.has(name)).map(|mount| mount.point.clone());

        let mut v1 = Vec::new();
        for controller in Controller::ALL {
            match on_v1(controller.name()) {
                Some(point) => v1.push((controller, point)),
                None if on_v2.split_whitespace().any(|name| name == controller.name()) => {}
                None => return Err(CgroupError::Missing(controller)),
            }
        }
        let cpuacct = if v2.is_none() { on_v1("cpuacct") } else { None };
        let for_show = FOR_SHOW.iter().filter_map(|name| on_v1(name)).filter(|_| !v1.is_empty());
        let known = |point: &PathBuf| v1.iter().any(|(_, there)| there == point) || cpuacct.as_ref() == Some(point);
        let for_show = for_show.filter(|point| !known(point)).collect();
        Ok(Self { v2, delegated: None, v1, cpuacct, for_show })
    }

    /// The same, with parents made in the group that systemd has delegated to this process (`Delegate=yes`), if it has,
    /// instead of at the root of version 2. Processes that are in it are moved aside when the first parent is made.
    /// Where controllers are on version 1, which systemd leaves alone, nothing changes.
    #[must_use]
    pub fn within_delegated(self) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let found = match (&self.v2, own) {
            (Some(mount), Some(own)) if self.is_pure_v2() => nearest_delegated(mount, Path::new(own)),
            _ => None,
        };
        self.within(found.as_deref())
    }

    /// The same in a group that was found to be delegated before, as [`Hierarchy::delegated`] said.
    #[must_use]
    pub fn within(mut self, group: Option<&Path>) -> Self {
        if let (Some(v2), Some(group)) = (&mut self.v2, group) {
            *v2 = v2.join(group.strip_prefix("/").unwrap_or(group));
            self.delegated = Some(group.to_owned());
        }
        self
    }

    /// The delegated group that parents are made in, from the root of version 2.
    pub fn delegated(&self) -> Option<&Path> {
        self.delegated.as_deref()
    }

    /// All controllers are on version 2.
    pub fn is_pure_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// Where version 2 is mounted, on hybrid hosts too.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Controllers to be enabled in the version 2 parents.
    pub(super) fn v2_controllers(&self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(|wanted| self.v1.iter().all(|(controller, _)| controller != wanted))
    }

    /// Every directory below which a group has a part.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|(_, root)| root.as_path());
        let mut seen: Vec<&Path> = Vec::new();
        let others = self.for_show.iter().map(PathBuf::as_path).chain(self.cpuacct.as_deref());
        for root in v1.chain(others).chain(self.v2.as_deref()) {
            if !seen.contains(&root) {
                seen.push(root);
            }
        }
        seen.into_iter()
    }
}

/// The group at `path` below `mount`, or the nearest above it, that is marked as delegated.
fn nearest_delegated(mount: &Path, path: &Path) -> Option<PathBuf> {
    let marked = |group: &&Path| {
        let dir = mount.join(group.strip_prefix("/").unwrap_or(group));
        DELEGATED.iter().any(|mark| rustix::fs::getxattr(&dir, *mark, &mut [0; 8]).is_ok_and(|length| length > 0))
    };
    path.ancestors().find(marked).map(Path::to_owned)
}

/// A line of `/proc/self/mountinfo`, see proc(5).
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.into();
        let mut right = right.split(' ');
        let kind = right.next()?;
        Some(Self { point, kind, options: right.nth(1)? })
    }

    fn has(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn controllers_are_found_where_they_are() {
        let v1 = Hierarchy::from_mounts(HYBRID, |_| String::new()).unwrap();
        assert_eq!((v1.v2(), v1.cpuacct.as_deref()), (None, Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))));
        assert_eq!(v1.roots().count(), 3);

        let hybrid = Hierarchy::from_mounts(&(HYBRID.to_owned() + UNIFIED), |_| "hugetlb\n".to_owned()).unwrap();
        assert_eq!(hybrid.v2_controllers().count(), 0);
        assert_eq!(hybrid.roots().count(), 4);

        let pure = "26 23 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let pure = Hierarchy::from_mounts(pure, |_| "cpuset cpu io memory pids\n".to_owned()).unwrap();
        assert!(pure.is_pure_v2());
        assert_eq!(pure.v2_controllers().count(), 3);
        let own = pure.within(Some(Path::new("/system.slice/hokku-dynos.service")));
        assert_eq!(own.delegated(), Some(Path::new("/system.slice/hokku-dynos.service")));
        assert_eq!(own.v2(), Some(Path::new("/sys/fs/cgroup/system.slice/hokku-dynos.service")));
    }

    impl Hierarchy {
        /// All on version 2, whatever this machine has.
        pub(in super::super) fn pure(mount: &Path) -> Self {
            Self { v2: Some(mount.into()), delegated: None, v1: Vec::new(), cpuacct: None, for_show: Vec::new() }
        }
    }

    #[test]
    fn the_nearest_group_that_was_delegated_is_found() {
        let mount = Hierarchy::detect().unwrap().v2.unwrap();
        let name = format!("hokku-test-delegated-{}", std::process::id());
        let unit = mount.join(&name);
        fs::create_dir_all(unit.join("inner/leaf")).unwrap();
        let inner = Path::new("/").join(&name).join("inner");
        let found = || nearest_delegated(&mount, &inner.join("leaf"));
        let before = found();
        rustix::fs::setxattr(&unit, DELEGATED[0], b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let after = found();
        for dir in ["inner/leaf", "inner", ""] {
            fs::remove_dir(unit.join(dir)).unwrap();
        }
        assert_eq!((before, after), (None, Some(Path::new("/").join(name))));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let without = HYBRID.replace("pids", "misc");
        let error = Hierarchy::from_mounts(&without, |_| String::new()).unwrap_err();
        assert_eq!(error.to_string(), "the kernel offers no pids controller for control groups");
    }
}
