//! Groups on the real kernel.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use super::files::{field, kept};
use super::group::V1Part;
use super::*;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const SMALL: GroupLimits =
    GroupLimits { memory_max: 32 * MIB, memory_high: None, shares: 200, cpu_quota_percent: Some(50), pids: 20 };

/// A group with a parent of its own, gone when dropped, whatever is in it.
struct Fixture {
    hierarchy: Hierarchy,
    parent: String,
    group: Group,
}

impl Fixture {
    fn new() -> Self {
        Self::below(Hierarchy::detect().unwrap().within_delegated())
    }

    fn below(hierarchy: Hierarchy) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = format!("hokku-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = Group::create(&hierarchy, &parent, "dyno", &SMALL).unwrap();
        Self { hierarchy, parent, group }
    }

    /// Runs `script` in the group: as a dyno is, or (`v2` false) only in the version 1 parts.
    fn spawn(&self, script: &str, v2: bool) -> Child {
        let born = match &self.group.v2 {
            Some(part) if v2 => format!("echo 0 > {}/cgroup.procs; ", part.dir.display()),
            _ => String::new(),
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(born + script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let again = |parts: &[V1Part]| parts.iter().map(V1Part::again).collect();
        let entry = Group { v2: None, v1: again(&self.group.v1), for_show: again(&self.group.for_show) };
        // SAFETY: runs in the single-threaded child; `enter` only writes to files that are open, without allocating.
        unsafe { command.pre_exec(move || entry.enter()) };
        command.spawn().unwrap()
    }

    fn file(&self, controller: Controller, name: &str) -> String {
        let (dir, _) = self.group.place(controller).unwrap();
        fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let gone = self.group.kill().and_then(|()| self.group.remove());
        let gone = gone.and_then(|()| remove_parent(&self.hierarchy, &self.parent));
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

impl V1Part {
    fn again(&self) -> Self {
        let tasks = self.tasks.as_ref().map(|file| file.try_clone().unwrap());
        Self { controller: self.controller, dir: self.dir.clone(), tasks }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn limits_are_what_the_files_say() {
    let fixture = Fixture::new();
    let v2 = fixture.hierarchy.is_pure_v2();
    let (memory, cpu, quota) = if v2 {
        ("memory.max", ("cpu.weight", "200"), ("cpu.max", "50000 100000"))
    } else {
        ("memory.limit_in_bytes", ("cpu.shares", "2048"), ("cpu.cfs_quota_us", "50000"))
    };
    assert_eq!(fixture.file(Controller::Memory, memory), (32 * MIB).to_string());
    assert_eq!(fixture.file(Controller::Cpu, cpu.0), cpu.1);
    assert_eq!(fixture.file(Controller::Cpu, quota.0), quota.1);
    assert_eq!(fixture.file(Controller::Pids, "pids.max"), "20");
    if v2 {
        assert_eq!(
            ["memory.swap.max", "memory.oom.group"].map(|name| fixture.file(Controller::Memory, name)),
            ["0", "1"]
        );
        if fixture.group.place(Controller::Cpu).unwrap().0.join("io.weight").exists() {
            assert_eq!(fixture.file(Controller::Cpu, "io.weight"), "default 200");
        }
    }
    if !v2 && fixture.group.place(Controller::Memory).unwrap().0.join("memory.memsw.limit_in_bytes").exists() {
        assert_eq!(fixture.file(Controller::Memory, "memory.memsw.limit_in_bytes"), (32 * MIB).to_string());
    }
}

#[test]
fn a_soft_limit_is_kept_where_there_is_one() {
    let fixture = Fixture::new();
    let soft = GroupLimits { memory_high: Some(16 * MIB), ..SMALL };
    let group = Group::create(&fixture.hierarchy, &fixture.parent, "soft", &soft).unwrap();
    if let Some((dir, true)) = group.place(Controller::Memory) {
        assert_eq!(fs::read_to_string(dir.join("memory.high")).unwrap().trim(), (16 * MIB).to_string());
    }
    group.remove().unwrap();
}

#[test]
fn a_limit_the_kernel_refuses_is_an_error_that_names_the_file_and_leaves_no_group() {
    let fixture = Fixture::new();
    let refused = GroupLimits { cpu_quota_percent: Some(0), ..SMALL };
    let error = Group::create(&fixture.hierarchy, &fixture.parent, "bad", &refused).unwrap_err();
    assert!(error.to_string().contains("/bad/cpu."), "{error}");
    assert_eq!(children(&fixture.hierarchy, &fixture.parent).unwrap(), ["dyno"]);
}

#[test]
fn a_limit_that_did_not_stick_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pids.max");
    fs::write(&path, "max\n").unwrap();
    let error = kept(&path, "20").unwrap_err().to_string();
    assert!(error.contains("pids.max") && error.contains("20") && error.contains("max"), "{error}");
}

#[test]
fn version_2_gets_its_own_files_and_units() {
    let dir = tempfile::tempdir().unwrap();
    let hierarchy = Hierarchy::pure(dir.path());
    let group_dir = dir.path().join("parent/dyno");
    fs::create_dir_all(&group_dir).unwrap();
    let files = ["memory.max", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.weight", "pids.max"];
    for file in files {
        fs::write(group_dir.join(file), "").unwrap();
    }
    fs::write(group_dir.join("cpu.max"), "max 100000").unwrap();

    let group = Group::open(&hierarchy, "parent", "dyno");
    group.set_limits(&GroupLimits { memory_high: Some(16 * MIB), ..SMALL }).unwrap();

    let says = |file: &str| fs::read_to_string(group_dir.join(file)).unwrap();
    let found = files.map(says).join(" ");
    assert_eq!(found, format!("{} {} 0 1 200 20", 32 * MIB, 16 * MIB));
    assert_eq!(says("cpu.max"), "50000 100000");
    assert_eq!(group.view(), [(group_dir.clone(), PathBuf::new())]);
    assert!(group.oom_eventfd().unwrap().is_none());
}

#[test]
fn a_fork_bomb_is_bounded_and_killed_whole() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn("b() { b | b & }; b & exec sleep 60", true);
    let refused = || field(&fixture.file(Controller::Pids, "pids.events"), "max").unwrap() > 0;
    eventually("a fork is refused", refused);
    assert!(fixture.group.stats().unwrap().pids <= 20);

    fixture.group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("the group is empty", || fixture.group.procs().unwrap().is_empty());
}

#[test]
fn processes_outside_the_version_2_part_are_killed_too() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn("sleep 60 & sleep 60", false);
    if fixture.hierarchy.is_pure_v2() {
        // There is no other part to be in.
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    eventually("both sleep", || fixture.group.procs().unwrap().len() == 3);
    fixture.group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    eventually("the group is empty", || fixture.group.procs().unwrap().is_empty());
}

#[test]
fn a_memory_hog_is_killed_and_the_group_says_so() {
    let fixture = Fixture::new();
    let watch = fixture.group.oom_eventfd().unwrap();
    assert!(!fixture.group.oom_killed().unwrap());
    let mut child = fixture.spawn("head -c 128M /dev/zero | tail; exit 3", true);
    child.wait().unwrap();
    assert!(fixture.group.oom_killed().unwrap());
    if let Some(watch) = watch {
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&watch, &mut count), Ok(8));
    }
}

#[test]
fn groups_share_what_their_parent_has_and_only_one_is_hit() {
    let fixture = Fixture::new();
    let other = Group::create(&fixture.hierarchy, &fixture.parent, "other", &SMALL).unwrap();
    let other = Fixture { group: other, hierarchy: fixture.hierarchy.clone(), parent: fixture.parent.clone() };
    assert_eq!(parent(&fixture.hierarchy, &fixture.parent).memory_max(), None);
    bound(&fixture.hierarchy, &fixture.parent, ParentLimits { memory_max: 24 * MIB, pids: 9 }).unwrap();
    let whole = parent(&fixture.hierarchy, &fixture.parent);
    assert_eq!(whole.memory_max(), Some(24 * MIB));
    assert_eq!(fs::read_to_string(whole.place(Controller::Pids).unwrap().0.join("pids.max")).unwrap().trim(), "9");

    let mut small = other.spawn("exec sleep 60", true);
    eventually("the small one is in", || !other.group.procs().unwrap().is_empty());
    // Below its own limit.
    let mut hog = fixture.spawn("head -c 28M /dev/zero | tail -n 1; exit 3", true);
    hog.wait().unwrap();
    assert!(fixture.group.oom_killed().unwrap() && !fixture.group.was_at_its_limit().unwrap());
    assert!(!other.group.oom_killed().unwrap() && small.try_wait().unwrap().is_none());
    small.kill().unwrap();
    small.wait().unwrap();
    other.group.remove().unwrap();
    std::mem::forget(other);
}

#[test]
fn a_signal_reaches_all_but_the_spared() {
    let fixture = Fixture::new();
    let mut spared = fixture.spawn("exec sleep 60", true);
    let mut hit = fixture.spawn("exec sleep 60", true);
    eventually("both are in", || fixture.group.procs().unwrap().len() == 2);
    let pid = i32::try_from(spared.id()).unwrap();
    fixture.group.signal(libc::SIGTERM, &[pid]).unwrap();
    assert_eq!(hit.wait().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(fixture.group.procs().unwrap(), [pid]);
    spared.kill().unwrap();
    spared.wait().unwrap();
}

#[test]
fn use_is_counted() {
    let fixture = Fixture::new();
    let script = "held=$(head -c 3000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exec sleep 60";
    let mut child = fixture.spawn(script, true);
    let counted = |stats: Stats| stats.cpu_usec > 10_000 && stats.memory_bytes > 2 * MIB && stats.pids == 1;
    eventually("time, memory and processes are counted", || counted(fixture.group.stats().unwrap()));
    let stats = fixture.group.stats().unwrap();
    assert!(stats.memory_peak.is_none_or(|peak| peak >= stats.memory_bytes), "{stats:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_group_left_by_a_crash_is_found_and_replaced_unless_it_is_in_use() {
    let mut fixture = Fixture::new();
    fixture.group = Group::create(&fixture.hierarchy, &fixture.parent, "dyno", &SMALL).unwrap();
    let mut child = fixture.spawn("exec sleep 60", true);
    eventually("it is in", || !fixture.group.procs().unwrap().is_empty());
    Group::create(&fixture.hierarchy, &fixture.parent, "dyno", &SMALL).unwrap_err();

    let found = Group::open(&fixture.hierarchy, &fixture.parent, "dyno");
    assert_eq!(found.procs().unwrap(), [i32::try_from(child.id()).unwrap()]);
    found.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn processes_of_a_delegated_group_make_room_for_its_controllers() {
    let whole = Hierarchy::detect().unwrap().within_delegated();
    if !whole.is_pure_v2() {
        println!("skipped: on version 1 groups with controllers may hold processes");
        return;
    }
    let outer = Fixture::below(whole);
    // A unit whose one process is in its group, as systemd starts it.
    let unit = outer.group.v2.as_ref().unwrap().dir.clone();
    let mut child = outer.spawn("exec sleep 60", true);
    eventually("it is in", || !outer.group.procs().unwrap().is_empty());

    let hierarchy = outer.hierarchy.clone().within(Some(Path::new(&format!("{}/dyno", outer.parent))));
    let inner = Group::create(&hierarchy, "parent", "dyno", &SMALL).unwrap();
    assert_eq!(outer.group.procs().unwrap(), Vec::<i32>::new());
    let aside = fs::read_to_string(unit.join("processes/cgroup.procs")).unwrap();
    assert_eq!(aside.trim(), child.id().to_string());
    assert_eq!(fs::read_to_string(unit.join("parent/dyno/pids.max")).unwrap().trim(), "20");

    inner.remove().unwrap();
    remove_parent(&hierarchy, "parent").unwrap();
    outer.group.kill().unwrap();
    child.wait().unwrap();
    eventually("the group is empty", || fs::remove_dir(unit.join("processes")).is_ok());
}

#[test]
fn what_is_gone_can_be_killed_and_removed_again() {
    let fixture = Fixture::new();
    let never = Group::open(&fixture.hierarchy, &fixture.parent, "never");
    never.kill().unwrap();
    never.signal(libc::SIGTERM, &[]).unwrap();
    never.remove().unwrap();
    let ours = |dir: &Path| dir.ends_with(format!("{}/never", fixture.parent)) || dir.ends_with(&fixture.parent);
    assert!(never.view().iter().all(|(dir, _)| ours(dir)));
}
