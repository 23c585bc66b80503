//! What of an instance is on the machine, as the kernel tells it: asked without hokku's help.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A process of the hokku binary, by what it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Server,
    Router,
    Launcher,
    Dns,
    WaitingShim,
    Shim,
    WaitingInit,
    Init,
    /// git's, or one that unpacks.
    Other,
}

/// An app's own program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    pub(crate) app: String,
    pub(crate) dyno: String,
    pub(crate) version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
}

/// Where the instance is.
pub(crate) struct Machine {
    name: String,
    number: u64,
    root: PathBuf,
    run: PathBuf,
    binary: PathBuf,
}

/// What was seen at one time.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) processes: BTreeMap<Role, Vec<i32>>,
    pub(crate) programs: Vec<Program>,
    /// Ended, and not reaped by a process of ours.
    pub(crate) zombies: Vec<i32>,
    /// By hierarchy: each group, and how many processes are in it.
    pub(crate) groups: BTreeMap<PathBuf, BTreeMap<String, usize>>,
    /// The slots whose link there is.
    pub(crate) links: BTreeSet<String>,
    /// Network namespaces of the instance's processes, beside the host's.
    pub(crate) networks: usize,
    /// Mounts of the host's that lead to ROOT or RUN.
    pub(crate) mounts: Vec<String>,
    pub(crate) records: BTreeSet<String>,
    /// Log rings of those who wait.
    pub(crate) rings: usize,
    /// Writable layers: directories with a quota, and loop devices.
    pub(crate) layers: usize,
    pub(crate) trees: BTreeSet<String>,
    /// What should never stay: names of what was half made, and stages of builds.
    pub(crate) half_made: Vec<String>,
}

impl Machine {
    pub(crate) fn new(root: &Path, run: &Path) -> Self {
        let name = run.file_name().unwrap().to_str().unwrap().to_owned();
        let register: serde_json::Value =
            serde_json::from_str(&fs::read_to_string("/run/hokku/instances.json").unwrap()).unwrap();
        let entries = register["entries"].as_array().unwrap().iter().map(|entry| &entry["instance"]);
        let number = entries.into_iter().find(|instance| instance["name"] == *name).unwrap()["number"].as_u64();
        let binary = fs::canonicalize(env!("CARGO_BIN_EXE_hokku")).unwrap();
        Self { name, number: number.unwrap(), root: root.to_owned(), run: run.to_owned(), binary }
    }

    pub(crate) fn look(&self) -> Seen {
        let (processes, programs, zombies, networks) = self.processes();
        let rings = names(&self.run)
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|it| it == "ring"))
            .count();
        Seen {
            processes,
            programs,
            zombies,
            groups: self.groups(),
            links: self.links(),
            networks,
            mounts: self.mounts(),
            records: names(&self.run.join("dynos")),
            rings,
            layers: self.layers(),
            trees: names(&self.root.join("trees")),
            half_made: self.half_made(),
        }
    }

    /// The processes of one role.
    pub(crate) fn of(&self, role: Role) -> Vec<i32> {
        self.processes().0.remove(&role).unwrap_or_default()
    }

    fn processes(&self) -> (BTreeMap<Role, Vec<i32>>, Vec<Program>, Vec<i32>, usize) {
        let (mut roles, mut programs, mut zombies) = (BTreeMap::<Role, Vec<i32>>::new(), Vec::new(), Vec::new());
        let mut networks = BTreeSet::new();
        let mut parents = BTreeMap::new();
        for pid in names(Path::new("/proc")).iter().filter_map(|name| name.parse::<i32>().ok()) {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            if let Some((state, parent)) = stat(&proc)
                && state == 'Z'
            {
                parents.insert(pid, parent);
                continue;
            }
            if let Some(role) = self.role(&proc) {
                roles.entry(role).or_default().push(pid);
            } else if let Some(program) = self.program(&proc, pid) {
                programs.push(program);
            } else {
                continue;
            }
            networks.extend(fs::read_link(proc.join("ns/net")).ok());
        }
        let ours: BTreeSet<i32> = roles.values().flatten().copied().collect();
        zombies.extend(parents.into_iter().filter(|(_, parent)| ours.contains(parent)).map(|(pid, _)| pid));
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        programs.sort();
        (roles, programs, zombies, networks.into_iter().filter(|network| *network != host).count())
    }

    fn role(&self, proc: &Path) -> Option<Role> {
        let exe = fs::read_link(proc.join("exe")).ok()?;
        if exe != self.binary {
            return None;
        }
        let line = fs::read(proc.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        let (run, name) = (self.run.to_str()?, &self.name);
        // Their titles name the app: what they have mapped or been told says whose they are.
        let has = |file: &str| {
            let text = fs::read(proc.join(file)).unwrap_or_default();
            text.windows(run.len() + 1).any(|window| window.strip_suffix(b"/") == Some(run.as_bytes()))
        };
        let titled = |title: &str| line.starts_with(title) && has("maps");
        let said = |text: &str| line == format!("{text} {name}");
        if said("hokku-launcher") || line.contains(" launcher ") && line.contains(run) {
            Some(Role::Launcher)
        } else if said("hokku-dns") {
            Some(Role::Dns)
        } else if titled("hokku-shim, waiting") {
            Some(Role::WaitingShim)
        } else if titled("hokku-shim") {
            Some(Role::Shim)
        } else if titled("hokku-init, waiting") {
            Some(Role::WaitingInit)
        } else if titled("hokku-init") {
            Some(Role::Init)
        } else if line.contains(" router ") && line.contains(run) {
            Some(Role::Router)
        } else if line.contains(" server ") && line.contains(&format!(" {name} ")) {
            Some(Role::Server)
        } else if line.contains(self.root.to_str()?) || has("environ") || has("maps") {
            Some(Role::Other)
        } else {
            None
        }
    }

    fn program(&self, proc: &Path, pid: i32) -> Option<Program> {
        let exe = fs::read_link(proc.join("exe")).ok()?;
        if !exe.as_os_str().as_bytes().windows(4).any(|part| part == b"perl") {
            return None;
        }
        let environ = fs::read(proc.join("environ")).ok()?;
        let environ = String::from_utf8_lossy(&environ).into_owned();
        let get = |key: &str| {
            environ.split('\0').find_map(|pair| Some(pair.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
        };
        // Which instance's: each test tells its apps.
        if get("INSTANCE")? != self.name {
            return None;
        }
        Some(Program {
            app: get("HEROKU_APP_NAME")?,
            dyno: get("DYNO")?,
            version: get("HEROKU_RELEASE_VERSION")?,
            id: get("HEROKU_DYNO_ID")?,
            pid,
        })
    }

    fn groups(&self) -> BTreeMap<PathBuf, BTreeMap<String, usize>> {
        let top = Path::new("/sys/fs/cgroup");
        let mut places = vec![top.to_owned()];
        places.extend(names(top).iter().map(|name| top.join(name)));
        let mut found = BTreeMap::new();
        for place in places {
            let parent = place.join(format!("hokku-{}", self.name));
            if !parent.is_dir() || parent.is_symlink() || place.is_symlink() {
                continue;
            }
            let dynos = names(&parent).into_iter().filter(|name| name.starts_with("dyno-"));
            let counted = dynos.map(|name| {
                let procs = fs::read_to_string(parent.join(&name).join("cgroup.procs")).unwrap_or_default();
                (name, procs.lines().count())
            });
            found.insert(parent.clone(), counted.collect());
        }
        found
    }

    fn links(&self) -> BTreeSet<String> {
        let prefix = format!("hk{}-", self.number);
        let links = names(Path::new("/sys/class/net"));
        links.iter().filter_map(|link| Some(format!("dyno-{}", link.strip_prefix(&prefix)?))).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = |line: &&str| [&self.root, &self.run].iter().any(|dir| line.contains(dir.to_str().unwrap()));
        table.lines().filter(here).map(str::to_owned).collect()
    }

    fn layers(&self) -> usize {
        let scratch = self.root.join("scratch");
        let projects = names(&scratch).into_iter().filter(|name| name.starts_with("project-")).count();
        let devices = names(Path::new("/sys/block")).into_iter().filter(|device| {
            let file = Path::new("/sys/block").join(device).join("loop/backing_file");
            fs::read_to_string(file).is_ok_and(|file| Path::new(&file).starts_with(&scratch))
        });
        projects + devices.count()
    }

    fn half_made(&self) -> Vec<String> {
        let mut found: Vec<String> =
            names(&self.root.join("builds")).into_iter().map(|it| format!("builds/{it}")).collect();
        for dir in ["slugs", "trees", "sources", "scratch", "cache", "stacks", "runtimes", "repos", "output"] {
            let half = |name: &String| name.contains(".tmp-") || name.starts_with("tmp-") || name.starts_with("new-");
            found.extend(names(&self.root.join(dir)).into_iter().filter(half).map(|it| format!("{dir}/{it}")));
        }
        found
    }
}

/// State and parent.
fn stat(proc: &Path) -> Option<(char, i32)> {
    let text = fs::read_to_string(proc.join("stat")).ok()?;
    let mut words = text.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// The names in a directory; none when it is not there.
pub(crate) fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Seen {
    pub(crate) fn count(&self, role: Role) -> usize {
        self.processes.get(&role).map_or(0, Vec::len)
    }

    /// What there is too much or too little of, when `dynos` live and nobody is at work.
    pub(crate) fn wrong(&self, dynos: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut is = |what: &str, found: usize, wanted: usize| {
            if found != wanted {
                wrong.push(format!("{what}: {found}, not {wanted}"));
            }
        };
        let waiting = self.count(Role::WaitingShim);
        let places = dynos + waiting;
        is("servers", self.count(Role::Server), 1);
        is("routers", self.count(Role::Router), 1);
        is("launchers", self.count(Role::Launcher), 1);
        is("shims", self.count(Role::Shim), dynos);
        is("inits", self.count(Role::Init), dynos);
        is("inits that wait", self.count(Role::WaitingInit), waiting);
        is("other processes", self.count(Role::Other), 0);
        is("zombies", self.zombies.len(), 0);
        is("links", self.links.len(), places);
        is("network namespaces", self.networks, places);
        is("records", self.records.len(), dynos);

        is("rings of those who wait", self.rings, waiting);
        is("writable layers", self.layers, places);
        if waiting > 2 || self.count(Role::Dns) > 1 {
            wrong.push(format!("{waiting} wait, {} ask for names", self.count(Role::Dns)));
        }
        if dynos > 0 && self.groups.values().all(BTreeMap::is_empty) {
            wrong.push("no control group".to_owned());
        }
        // A hierarchy that no dyno is in has the parent only.
        for (parent, groups) in self.groups.iter().filter(|(_, groups)| !groups.is_empty()) {
            let names: BTreeSet<String> = groups.keys().cloned().collect();
            if names != self.links {
                wrong.push(format!("{}: {names:?}, and the links of {:?}", parent.display(), self.links));
            }
            let empty = groups.iter().filter(|(_, processes)| **processes == 0).map(|(name, _)| name);
            wrong.extend(empty.map(|name| format!("nobody is in {}/{name}", parent.display())));
        }
        wrong.extend(self.mounts.iter().map(|mount| format!("mounted: {mount}")));
        wrong.extend(self.half_made.iter().map(|name| format!("half made: {name}")));
        wrong
    }
}
