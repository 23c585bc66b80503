//! Which instances there are on this host: the register that gives each its number, from which its subnet, links, uids
//! and cgroups follow, so that several live side by side.
//!
//! The register is `/run/hokku/instances.json`, guarded by a lock on `/run/hokku/lock`. An entry is made when a server
//! first starts and stays while its dynos may live, until [`release`] (`hokku down`) or the next boot; a running server
//! also holds locks on its ROOT and RUN, so no two work on the same.
#![forbid(unsafe_code)]
#![expect(clippy::missing_errors_doc, reason = "the error types say it")]

mod forwarding;

pub use forwarding::forwards_ipv6;

use crate::domain::instance::{Instance, InstanceName, MAX_INSTANCES};
use crate::sys::cgroup::{CgroupError, Hierarchy};
use crate::sys::netlink::Netlink;
use forwarding::Before;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const REGISTER_DIR: &str = "/run/hokku";

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("a server is already running on {root}")]
    RootInUse { root: PathBuf },
    #[error("the name {name} is taken by the instance whose state is in {root}")]
    NameTaken { name: InstanceName, root: PathBuf },
    #[error("the state in {root} belongs to the instance {name}, which is still there")]
    RootTaken { root: PathBuf, name: InstanceName },
    #[error(
        "no number is left for another instance: at most {MAX_INSTANCES}, and their subnets (10.128.0.0/16 and on) must be free on this host"
    )]
    Full,
    #[error("cannot see which subnets this host uses")]
    Subnets(#[source] io::Error),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// A failed read or write of the register or of the directories that go with it.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}")]
pub struct RegisterError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Holds the locks on ROOT and RUN: while it lives, no other server works on them.
#[derive(Debug)]
pub struct Claim {
    _root: File,
    _run: File,
}

/// Makes this process the server of the instance `name` with its state in `root` (made if missing). The same name and
/// root get the same number again for as long as the entry lives.
pub fn claim(name: InstanceName, root: &Path) -> Result<(Instance, Claim), ClaimError> {
    let at = |source| RegisterError { path: root.into(), source };
    fs::create_dir_all(root).map_err(at)?;
    let root = root.canonicalize().map_err(at)?;
    let Some(root_lock) = try_lock(&root.join("lock"))? else {
        return Err(ClaimError::RootInUse { root });
    };

    let mut register = Register::open()?;
    let instance = match register.entry_for(&name, &root)? {
        Some(known) if has_its_groups(&known) => known,
        Some(known) => Instance { delegated: delegated(), ..known },
        None => Instance { delegated: delegated(), ..Instance::new(name, root, register.number()?) },
    };
    make_passable(&instance.run).map_err(|source| RegisterError { path: instance.run.clone(), source })?;
    let Some(run_lock) = try_lock(&instance.run.join("lock"))? else {
        return Err(ClaimError::RootInUse { root: instance.root });
    };
    register.forget(&instance.name);
    register.content.entries.push(Entry { instance: instance.clone(), namespace: network_namespace()? });
    register.save()?;
    write_json(&instance.run.join("instance.json"), &instance)?;
    Ok((instance, Claim { _root: root_lock, _run: run_lock }))
}

/// The registered instance that has its state in `root`, running or not.
pub fn find(root: &Path) -> Result<Option<Instance>, RegisterError> {
    let Ok(root) = root.canonicalize() else { return Ok(None) };
    Ok(list()?.into_iter().find(|instance| instance.root == root))
}

/// The instances registered on this host, running or not.
pub fn list() -> Result<Vec<Instance>, RegisterError> {
    if !Path::new(REGISTER_DIR).join("instances.json").exists() {
        return Ok(Vec::new());
    }
    Ok(Register::open()?.content.entries.into_iter().map(|entry| entry.instance).collect())
}

/// Where the instance's control groups are.
pub fn hierarchy(instance: &Instance) -> Result<Hierarchy, CgroupError> {
    Ok(Hierarchy::detect()?.within(instance.delegated.as_deref()))
}

/// Its dynos may be in groups below the one that was delegated to an earlier server; when that is gone, none are left.
fn has_its_groups(instance: &Instance) -> bool {
    instance.delegated.is_none() || hierarchy(instance).is_ok_and(|there| there.v2().is_some_and(Path::exists))
}

/// Where this process may make control groups. A host without any is found out when the first dyno is to start.
fn delegated() -> Option<PathBuf> {
    Hierarchy::detect().ok()?.within_delegated().delegated().map(Path::to_owned)
}

/// Takes the instance off the register and removes its RUN. Its links, cgroups and rules must be gone already. When it
/// was the last in its network namespace (usually the host's), what was changed there for all of them is set back.
pub fn release(instance: &Instance) -> Result<(), RegisterError> {
    let mut register = Register::open()?;
    remove_dir(&instance.run)?;
    register.forget(&instance.name);
    register.restore_forwarding()?;
    register.save()
}

/// Lets this host forward packets between its links, those of IPv6 only when that is wanted and there is any, and
/// remembers what it did not do before.
pub(super) fn switch_forwarding_on(ipv6: bool) -> Result<(), RegisterError> {
    let mut register = Register::open()?;
    let namespace = network_namespace()?;
    register.content.before.look(namespace, ipv6 && forwarding::has_ipv6())?;
    // First it is written down how it was.
    register.save()?;
    register.content.before.switch_on(namespace)
}

/// The register, locked for as long as this lives.
struct Register {
    content: Content,
    _lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// The boot that all below is about: `/run` is not everywhere emptied by a reboot.
    boot: String,
    entries: Vec<Entry>,
    #[serde(flatten)]
    before: Before,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    instance: Instance,
    /// The network namespace that its links are in.
    namespace: u64,
}

impl Content {
    fn new(boot: String) -> Self {
        Self { boot, ..Self::default() }
    }

    /// What `bytes` say if they are about this boot; otherwise nothing, and the RUNs that the reboot made worthless.
    fn of_boot(boot: String, bytes: &[u8]) -> io::Result<(Self, Vec<PathBuf>)> {
        let content: Self = serde_json::from_slice(bytes)?;
        if content.boot == boot {
            return Ok((content, Vec::new()));
        }
        Ok((Self::new(boot), content.entries.into_iter().map(|entry| entry.instance.run).collect()))
    }
}

impl Register {
    fn open() -> Result<Self, RegisterError> {
        let lock = lock_register()?;
        let boot = read("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let path = Self::path();
        let content = match fs::read(&path) {
            Ok(bytes) => Content::of_boot(boot, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Content::new(boot), Vec::new())),
            Err(error) => Err(error),
        };
        let (content, left_over) = content.map_err(|source| RegisterError { path, source })?;
        left_over.iter().try_for_each(|run| remove_dir(run))?;
        Ok(Self { content, _lock: lock })
    }

    fn path() -> PathBuf {
        Path::new(REGISTER_DIR).join("instances.json")
    }

    /// Writes the register, or removes every trace of it when nothing is left to remember.
    fn save(&self) -> Result<(), RegisterError> {
        if !self.content.entries.is_empty() || !self.content.before.is_empty() {
            return write_json(&Self::path(), &self.content);
        }
        let dir = Path::new(REGISTER_DIR);
        for file in [Self::path(), dir.join("lock")] {
            gone(fs::remove_file(&file)).map_err(|source| RegisterError { path: file, source })?;
        }
        // Something else may be in there (the RUN of a fixed instance); then it stays.
        let _ = fs::remove_dir(dir);
        Ok(())
    }

    /// Forgets those of the instances that `wanted` names which are over: ROOT is gone, and neither a server nor a
    /// launcher runs on it. Only what is in the way is forgotten, as ROOT may also be on a disk that is not seen from
    /// here, and `hokku down` could not clear away any more what nobody knows.
    fn drop_stale(&mut self, wanted: impl Fn(&Instance) -> bool) -> Result<(), RegisterError> {
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.content.entries) {
            if !wanted(&entry.instance) || is_alive(&entry.instance)? {
                kept.push(entry);
            }
        }
        self.content.entries = kept;
        Ok(())
    }

    fn forget(&mut self, name: &InstanceName) {
        self.content.entries.retain(|entry| entry.instance.name != *name);
    }

    fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.content.entries.iter().map(|entry| &entry.instance)
    }

    /// The entry for this very name and root.
    fn entry_for(&mut self, name: &InstanceName, root: &Path) -> Result<Option<Instance>, ClaimError> {
        self.drop_stale(|entry| entry.name == *name && entry.root != root)?;
        if let Some(entry) = self.instances().find(|entry| entry.name == *name) {
            let same = entry.root == root;
            let taken = || ClaimError::NameTaken { name: name.clone(), root: entry.root.clone() };
            return if same { Ok(Some(entry.clone())) } else { Err(taken()) };
        }
        match self.instances().find(|entry| entry.root == root) {
            Some(entry) => Err(ClaimError::RootTaken { root: root.into(), name: entry.name.clone() }),
            None => Ok(None),
        }
    }

    /// A number that is free, if need be one whose instance is over. It is not given out while its subnet is in use, so
    /// what that instance may have left cannot be mistaken for somebody else's.
    fn number(&mut self) -> Result<u32, ClaimError> {
        match self.free_number() {
            Err(ClaimError::Full) => {
                self.drop_stale(|_| true)?;
                self.free_number()
            }
            other => other,
        }
    }

    fn free_number(&self) -> Result<u32, ClaimError> {
        let used = subnets_in_use().map_err(ClaimError::Subnets)?;
        let given = |number: u32| self.instances().any(|entry| entry.number == number);
        let free = |number: &u32| {
            let instance = Instance::new(InstanceName::default(), PathBuf::new(), *number);
            let ((v4, prefix), (v6, prefix6)) = (instance.subnet(), instance.subnet6());
            let subnets: [(IpAddr, u8); 2] = [(v4.into(), prefix), (v6.into(), prefix6)];
            !given(*number) && subnets.iter().all(|ours| used.iter().all(|other| !overlap(*ours, *other)))
        };
        (0..MAX_INSTANCES).find(free).ok_or(ClaimError::Full)
    }

    fn restore_forwarding(&mut self) -> Result<(), RegisterError> {
        let here = network_namespace()?;
        for entry in self.content.entries.iter().filter(|entry| entry.namespace == here) {
            if is_alive(&entry.instance)? {
                return Ok(());
            }
        }
        self.content.before.restore(here)
    }
}

/// Whether there is anything that could be lost: its state, a server or a launcher.
fn is_alive(instance: &Instance) -> Result<bool, RegisterError> {
    let lock = instance.run.join("lock");
    let launcher = || UnixStream::connect(super::launcher::socket(instance)).is_ok();
    Ok(instance.root.exists() || launcher() || (lock.exists() && try_lock(&lock)?.is_none()))
}

/// The subnets that this host's addresses are in and that its routes lead to, the default route aside.
fn subnets_in_use() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut netlink = Netlink::open()?;
    let mut used: Vec<_> = netlink.addresses()?.into_iter().map(|(address, prefix, _)| (address, prefix)).collect();
    used.extend(netlink.routes()?.into_iter().filter(|route| route.prefix > 0).map(|route| (route.to, route.prefix)));
    Ok(used)
}

fn overlap(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    // By IPv4 as the last bits of IPv6, so that one rule is enough; the two never meet.
    let bits = |address| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((a_bits, longest), (b_bits, other)) = (bits(a.0), bits(b.0));
    let shorter = a.1.min(b.1).min(longest);
    let mask = u128::MAX.checked_shl(128 - u32::from(shorter)).unwrap_or(0);
    longest == other && a_bits & mask == b_bits & mask
}

/// Makes a directory that the instances' unprivileged helpers can pass through, whatever this process's umask.
fn make_passable(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// Takes the lock, waiting for it. Whoever empties the register unlinks the lock file too, so a lock on a file that is
/// no longer there counts for nothing.
fn lock_register() -> Result<File, RegisterError> {
    let path = Path::new(REGISTER_DIR).join("lock");
    let lock = || loop {
        make_passable(Path::new(REGISTER_DIR))?;
        let file = match open_lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        file.lock()?;
        let there = fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
        if there {
            return Ok(file);
        }
    };
    lock().map_err(|source| RegisterError { path: path.clone(), source })
}

/// `None`: another process has it.
fn try_lock(path: &Path) -> Result<Option<File>, RegisterError> {
    let locked = open_lock(path).and_then(|file| match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    });
    locked.map_err(|source| RegisterError { path: path.into(), source })
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

fn network_namespace() -> Result<u64, RegisterError> {
    let path = Path::new("/proc/thread-self/ns/net");
    fs::metadata(path).map(|namespace| namespace.ino()).map_err(|source| RegisterError { path: path.into(), source })
}

fn read(path: &str) -> Result<String, RegisterError> {
    fs::read_to_string(path).map_err(|source| RegisterError { path: path.into(), source })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RegisterError> {
    let write = || {
        let bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        let half_made = path.with_extension("json.new");
        let mut file = File::create(&half_made)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&half_made, path)
    };
    write().map_err(|source| RegisterError { path: path.into(), source })
}

fn remove_dir(path: &Path) -> Result<(), RegisterError> {
    gone(fs::remove_dir_all(path)).map_err(|source| RegisterError { path: path.into(), source })
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn name() -> InstanceName {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap()
    }

    /// Forwarding of both families, and whether `default` and the first link listen to routers.
    const SWITCHES: [&str; 4] =
        ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/accept_ra", "ipv6/conf/up/accept_ra"];

    fn switches() -> [String; 4] {
        SWITCHES.map(|file| fs::read_to_string(Path::new("/proc/sys/net").join(file)).unwrap().trim().to_owned())
    }

    #[test]
    fn forwarding_is_set_back_with_the_last_instance() {
        let play = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let namespace = File::open("/proc/thread-self/ns/net").unwrap();
            Netlink::open().unwrap().add_veth("up", 1500, "down", std::os::fd::AsFd::as_fd(&namespace)).unwrap();
            // One that is over counts for nothing.
            let _over = over();
            for (before, ipv6, during) in [
                (["0", "0", "1", "1"], false, ["1", "0", "1", "1"]),
                (["0", "0", "1", "1"], true, ["1", "1", "2", "2"]),
                (["1", "0", "1", "0"], true, ["1", "1", "2", "0"]),
                (["0", "1", "1", "1"], true, ["1", "1", "1", "1"]),
                (["1", "1", "2", "0"], true, ["1", "1", "2", "0"]),
            ] {
                for (file, value) in SWITCHES.iter().zip(before) {
                    fs::write(Path::new("/proc/sys/net").join(file), value).unwrap();
                }
                let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
                let [first, second] = roots.each_ref().map(|root| claim(name(), root.path()).unwrap().0);
                switch_forwarding_on(false).unwrap();
                switch_forwarding_on(ipv6).unwrap();
                release(&first).unwrap();
                assert_eq!(switches(), during);
                assert_eq!(forwards_ipv6(), during[1] == "1");
                release(&second).unwrap();
                assert_eq!(switches(), before);
            }
        };
        std::thread::spawn(play).join().unwrap();
    }

    #[test]
    fn a_reboot_empties_the_register() {
        let instance = Instance::new(name(), "/r".into(), 3);
        let entries = vec![Entry { instance: instance.clone(), namespace: 1 }];
        let before = serde_json::from_str(r#"{"forwarding_was_off":[1]}"#).unwrap();
        let content = Content { boot: "first".to_owned(), entries, before };
        let bytes = serde_json::to_vec(&content).unwrap();

        let (same, left_over) = Content::of_boot("first".to_owned(), &bytes).unwrap();
        assert_eq!((same.entries.len(), left_over.len()), (1, 0));
        let (next, left_over) = Content::of_boot("second".to_owned(), &bytes).unwrap();
        assert_eq!((next.entries.len(), next.before.is_empty(), next.boot.as_str()), (0, true, "second"));
        assert_eq!(left_over, [instance.run]);
    }

    /// Takes an instance off the register when dropped.
    struct Registered(Instance);

    impl Drop for Registered {
        fn drop(&mut self) {
            release(&self.0).unwrap();
        }
    }

    #[test]
    fn a_server_gets_its_number_back_and_others_get_another() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, claim_a) = claim(name(), a.path()).unwrap();
        let first = Registered(first);
        let (second, _claim_b) = claim(name(), b.path()).unwrap();
        let second = Registered(second);
        assert_ne!(first.0.number, second.0.number);
        assert!(first.0.run.join("instance.json").exists());

        drop(claim_a);
        let (again, _claim_a) = claim(first.0.name.clone(), a.path()).unwrap();
        assert_eq!(again, first.0);
        assert_eq!(find(a.path()).unwrap(), Some(again));
    }

    #[test]
    fn an_instance_stays_where_its_groups_are_for_as_long_as_those_are_there() {
        let below = |delegated: Option<&str>| Instance {
            delegated: delegated.map(PathBuf::from),
            ..Instance::new(name(), "/r".into(), 3)
        };
        assert!(has_its_groups(&below(None)));
        assert!(has_its_groups(&below(Some("/"))));
        assert!(!has_its_groups(&below(Some("/gone/away"))));
    }

    #[test]
    fn a_running_server_keeps_its_root_to_itself() {
        let root = tempfile::tempdir().unwrap();
        let (instance, _claim) = claim(name(), root.path()).unwrap();
        let instance = Registered(instance);
        let error = claim(instance.0.name.clone(), root.path()).unwrap_err();
        assert!(matches!(error, ClaimError::RootInUse { .. }), "{error}");
        assert!(error.to_string().starts_with("a server is already running on /"), "{error}");
    }

    #[test]
    fn a_name_and_a_root_belong_together_also_while_no_server_runs() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (instance, ended) = claim(name(), a.path()).unwrap();
        drop(ended);
        let instance = Registered(instance);
        let error = claim(instance.0.name.clone(), b.path()).unwrap_err().to_string();
        assert!(error.contains(a.path().to_str().unwrap()) && error.contains(instance.0.name.as_str()), "{error}");
        let error = claim(name(), a.path()).unwrap_err().to_string();
        assert!(error.contains("belongs to the instance") && error.contains(instance.0.name.as_str()), "{error}");
    }

    #[test]
    fn a_deleted_root_frees_the_name_once_its_server_has_ended() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (instance, running) = claim(name(), a.path()).unwrap();
        let instance = Registered(instance);
        drop(a);
        claim(instance.0.name.clone(), b.path()).unwrap_err();
        drop(running);
        let (next, _claim) = claim(instance.0.name.clone(), b.path()).unwrap();
        assert_eq!(next.root, b.path().canonicalize().unwrap());
    }

    /// An instance whose ROOT is gone and whose server has ended.
    fn over() -> Registered {
        let root = tempfile::tempdir().unwrap();
        let (instance, _claim) = claim(name(), root.path()).unwrap();
        Registered(instance)
    }

    #[test]
    fn numbers_of_what_is_over_are_given_out_again_when_none_is_left() {
        let root = tempfile::tempdir().unwrap();
        // The last, as the subnets of the first may be in use here.
        let last = MAX_INSTANCES - 1;
        let numbered = |number| {
            let root = if number == last { "/gone".into() } else { root.path().to_owned() };
            Entry { instance: Instance::new(name(), root, number), namespace: 1 }
        };
        let mut content = Content::new(String::new());
        content.entries = (0..MAX_INSTANCES).map(numbered).collect();
        let mut register = Register { content, _lock: tempfile::tempfile().unwrap() };
        assert_eq!(register.number().unwrap(), last);
        let instance = Instance::new(name(), root.path().to_owned(), last);
        register.content.entries.push(Entry { instance, namespace: 1 });
        assert!(matches!(register.number(), Err(ClaimError::Full)));
    }

    #[test]
    fn what_is_in_nobodys_way_is_not_forgotten() {
        let (instance, b) = (over(), tempfile::tempdir().unwrap());
        let (other, _claim) = claim(name(), b.path()).unwrap();
        let _other = Registered(other);
        assert!(list().unwrap().contains(&instance.0));
    }

    #[test]
    fn a_name_is_not_free_while_its_launcher_lives() {
        let (instance, b) = (over(), tempfile::tempdir().unwrap());
        let launcher = std::os::unix::net::UnixListener::bind(super::super::launcher::socket(&instance.0)).unwrap();
        let error = claim(instance.0.name.clone(), b.path()).unwrap_err();
        assert!(matches!(error, ClaimError::NameTaken { .. }), "{error}");
        drop(launcher);
        claim(instance.0.name.clone(), b.path()).unwrap();
    }

    #[test]
    fn release_leaves_no_entry_and_no_run() {
        let root = tempfile::tempdir().unwrap();
        let (instance, _claim) = claim(name(), root.path()).unwrap();
        release(&instance).unwrap();
        assert!(!instance.run.exists());
        assert_eq!(find(root.path()).unwrap(), None);
        release(&instance).unwrap();
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        let net = |text: &str| {
            let (address, prefix) = text.split_once('/').unwrap();
            (address.parse().unwrap(), prefix.parse().unwrap())
        };
        for (a, b, expected) in [
            ("10.128.0.0/16", "10.128.3.4/32", true),
            ("10.128.0.0/16", "10.0.0.0/8", true),
            ("10.128.0.0/16", "10.129.0.0/16", false),
            ("10.128.0.0/16", "192.168.0.0/16", false),
            ("10.128.0.0/16", "0.0.0.0/0", true),
            ("fd68:1::/64", "fd68:1::7/128", true),
            ("fd68:1::/64", "fd68:2::/64", false),
            ("fd68:1::/64", "0.0.0.0/0", false),
            ("::/0", "fd68:1::/64", true),
        ] {
            assert_eq!(overlap(net(a), net(b)), expected, "{a} {b}");
        }
    }
}
