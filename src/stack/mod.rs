//! Stacks: where a dyno's files outside its app come from.
//!
//! ```text
//!  host        ROOT/stacks/host/<digest>/         a small base; the box's /usr is bound into it      [`host`]
//!  debian-13   ROOT/stacks/site/<digest>/         what is of this box: accounts, certificates, time zone
//!              ROOT/stacks/debian-13/<digest>/    a layer for each language, one for compilers, the base   [`layers`]
//! ```
//!
//! Both come out as a [`Stack`]: lower layers of the dyno's root, binds, and the environment to begin with. Whatever has
//! a digest for its name is complete, never changes, and is shared by all dynos; it is collected when nothing can need
//! it any more.
#![forbid(unsafe_code)]

mod apt;
mod etc;
mod host;
mod keystore;
mod layers;
mod make;
mod recipe;
pub mod runtimes;
mod seal;
mod skeleton;
mod transfer;

pub use apt::SourcesError;
pub use host::host;
pub use layers::{Debian, Generation, LayersError, Made};
pub use make::{MakeError, Origin, Say};
pub use recipe::digest_of_all;
pub use transfer::TransferError;

use crate::domain::stack::{Language, Layer, StackName};
use crate::slug::SlugStore;
use runtimes::Runtimes;
use skeleton::Skeleton;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a dyno's files outside its app come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    pub name: StackName,
    /// What a slug is tied to: `host-debian-12`, `debian-13`.
    pub id: String,
    /// Lower layers of a dyno's root, topmost first. Owned by root, readable by all.
    pub layers: Vec<PathBuf>,
    /// Host directories to mount on top, in this order: read-only, nosuid, nodev, id-mapped.
    pub binds: Vec<Bind>,
    /// What every process begins with, in builds and dynos.
    pub env: Vec<(String, String)>,
}

/// A directory or file of the host that dynos see at `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
}

/// Why there is no stack.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    #[error("could not {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} cannot be shown to dynos: {why}", path.display())]
    Path { path: PathBuf, why: &'static str },
    #[error(transparent)]
    Layers(#[from] LayersError),
}

impl Stack {
    pub fn new(name: StackName, id: String, layers: Vec<PathBuf>, binds: Vec<Bind>) -> Self {
        let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Self { name, id, layers, binds, env }
    }
}

/// All stacks of a box. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Stacks {
    host: Arc<Stack>,
    /// The topmost layer of `debian-13`.
    site: PathBuf,
    debian: Debian,
    runtimes: Runtimes,
}

impl Stacks {
    /// Makes the host stack as the host is now, or finds it made. `extra` are further host paths that its dynos see at
    /// the same place (`[stack.host] paths`); `origin` is where Debian packages come from unless something else is said.
    ///
    /// # Errors
    /// An extra path that is relative, missing, or would show dynos the platform's own state; a disk that is full.
    pub fn open(root: &Path, slugs: SlugStore, extra: &[PathBuf], origin: Origin) -> Result<Self, StackError> {
        let host = Arc::new(host(root, extra)?);
        let mut site = Skeleton::default();
        mount_points(&mut site);
        etc::site(Path::new("/etc"), &mut site)?;
        let site = site.write(&root.join("stacks/site"))?;
        let store = root.join("runtimes");
        let runtimes = Runtimes::open(root, slugs.clone()).map_err(io_error("open", &store))?;
        Ok(Self { host, site, debian: Debian::open(root, slugs, origin)?, runtimes })
    }

    pub fn host(&self) -> &Arc<Stack> {
        &self.host
    }

    /// The layers that `debian-13` is made of.
    pub fn debian(&self) -> &Debian {
        &self.debian
    }

    /// Versions of languages that no layer has.
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// The stack as it is now, with what `languages` need; `building` adds the compilers. On `host` everything that is
    /// installed is there.
    ///
    /// # Errors
    /// Layers that have not been made yet.
    pub fn get(&self, name: StackName, languages: &[Language], building: bool) -> Result<Arc<Stack>, StackError> {
        match name {
            StackName::Host => Ok(Arc::clone(&self.host)),
            StackName::Debian13 => {
                let compilers = building.then_some(Layer::Compilers);
                let wanted: Vec<Layer> = languages.iter().copied().map(Layer::Language).chain(compilers).collect();
                let mut layers = vec![self.site.clone()];
                layers.extend(self.debian.paths(&wanted)?);
                Ok(Arc::new(Stack::new(name, name.to_string(), layers, Vec::new())))
            }
        }
    }
}

/// What every root has, so that nothing has to be made there at a launch.
fn mount_points(skeleton: &mut Skeleton) {
    for path in ["app", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "run/lock", "srv", "sys", "usr"] {
        skeleton.dir(path);
    }
    for path in ["var", "var/cache", "var/lib", "var/log", "var/spool"] {
        skeleton.dir(path);
    }
    skeleton.shared_dir("tmp");
    skeleton.shared_dir("var/tmp");
    skeleton.link("var/run", "/run");
    skeleton.link("var/lock", "/run/lock");
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StackError + 'a {
    move |source| StackError::Io { doing, path: path.to_owned(), source }
}
