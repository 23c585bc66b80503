//! The layers of `debian-13` on this box: `ROOT/stacks/debian-13/`.
//!
//! ```text
//!  current.json     which layers new dynos get: name → digest, the base it was made on, packages, size
//!  <digest>/        a layer
//!  tmp-<uuid>…      one that is being made or imported
//! ```
//!
//! A layer that is made again gets another digest and is entered in `current.json`; those that run keep theirs until
//! they restart. A layer is meant for the base it was made on, so that base is kept with it and mounted below it.
#![forbid(unsafe_code)]

use super::make::{self, MakeError, Order, Origin, Say};
use super::{recipe, seal};
use crate::domain::slug::Digest;
use crate::domain::stack::Layer;
use crate::slug::{SlugError, SlugStore, digest_of_tree};
use crate::sys::tree;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const CURRENT: &str = "current.json";
const HALF_MADE: &str = "tmp-";

/// A launch that was told its layers is among the dynos within this, where whoever collects can see it.
const LEASE: Duration = Duration::from_secs(15);

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub digest: Digest,
    /// What it was made on; none for a base.
    pub base: Option<Digest>,
    /// Of the list that it was made from.
    pub recipe: String,
    /// What it adds to its base, with versions.
    pub packages: BTreeMap<String, String>,
    /// Of its files.
    pub bytes: u64,
    pub made_at: Timestamp,
}

/// The layers that new dynos get.
pub type Generation = BTreeMap<Layer, Made>;

#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error(
        "debian-13 has no {list} layer on this box: make it with hokku stack:build debian-13 --languages {languages}, or import it with hokku stack:import",
        list = words(.0, " and no "), languages = languages(.0)
    )]
    Missing(Vec<Layer>),
    #[error(transparent)]
    Make(#[from] MakeError),
    #[error("a layer can't be read")]
    Read(#[from] SlugError),
    #[error("can't use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("making the layer was interrupted")]
    Interrupted,
}

fn words(layers: &[Layer], between: &str) -> String {
    layers.iter().map(|layer| layer.as_str()).collect::<Vec<_>>().join(between)
}

fn languages(layers: &[Layer]) -> String {
    let languages: Vec<Layer> = layers.iter().copied().filter(|layer| matches!(layer, Layer::Language(_))).collect();
    if languages.is_empty() { "none".to_owned() } else { words(&languages, ",") }
}

/// Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Debian(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    slugs: SlugStore,
    /// Where packages come from unless something else is said.
    origin: Origin,
    generation: Mutex<Generation>,
    /// One layer is made, imported or sent at a time, and none is collected meanwhile.
    busy: Arc<tokio::sync::Mutex<()>>,
    /// When a launch was told a layer last.
    leases: Mutex<HashMap<Digest, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayersError {
    let path = path.to_owned();
    move |source| LayersError::Io { path, source }
}

impl Debian {
    /// What there is, which may be a running server's: nothing is removed or made.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn look(root: &Path) -> Result<Self, LayersError> {
        let dir = root.join("stacks").join("debian-13");
        let generation = read_current(&dir)?;
        Ok(Self::with(dir, SlugStore::look(root), Origin::default(), generation))
    }

    /// Finds what there is, and removes what a stopped server has left half-made.
    ///
    /// # Errors
    /// When it can't be read or removed.
    pub fn open(root: &Path, slugs: SlugStore, origin: Origin) -> Result<Self, LayersError> {
        let dir = root.join("stacks").join("debian-13");
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let path = entry.map_err(at(&dir))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(HALF_MADE)) {
                seal::remove(&path).map_err(at(&path))?;
            }
        }
        let generation = read_current(&dir)?;
        Ok(Self::with(dir, slugs, origin, generation))
    }

    fn with(dir: PathBuf, slugs: SlugStore, origin: Origin, generation: Generation) -> Self {
        let (generation, busy, leases) = (Mutex::new(generation), Arc::default(), Mutex::default());
        Self(Arc::new(Inner { dir, slugs, origin, generation, busy, leases }))
    }

    pub fn current(&self) -> Generation {
        lock(&self.0.generation).clone()
    }

    /// Those of `layers` that are not there, the base among them when anything is missing without it.
    pub fn missing(&self, layers: &[Layer]) -> Vec<Layer> {
        let generation = lock(&self.0.generation);
        let wanted = std::iter::once(Layer::Base).chain(layers.iter().copied());
        wanted.filter(|layer| !generation.contains_key(layer)).collect()
    }

    /// Layers that were made from another list than this hokku has.
    pub fn is_of_another_list(layer: Layer, made: &Made) -> bool {
        made.recipe != recipe::digest(layer)
    }

    /// Lower layers, topmost first, the base last.
    pub(super) fn paths(&self, layers: &[Layer]) -> Result<Vec<PathBuf>, LayersError> {
        let missing = self.missing(layers);
        if !missing.is_empty() {
            return Err(LayersError::Missing(missing));
        }
        let generation = lock(&self.0.generation);
        let wanted: Vec<&Made> = layers.iter().filter_map(|layer| generation.get(layer)).collect();
        let bases: BTreeSet<&Digest> = wanted.iter().filter_map(|made| made.base.as_ref()).collect();
        // Layers of different bases meet on the newest.
        let newest = &generation[&Layer::Base].digest;
        let base = if bases.len() == 1 { bases.first().copied().unwrap_or(newest) } else { newest };
        let digests: Vec<&Digest> = wanted.iter().map(|made| &made.digest).chain([base]).collect();
        let mut leases = lock(&self.0.leases);
        for digest in &digests {
            leases.insert((*digest).clone(), Instant::now());
        }
        Ok(digests.into_iter().map(|digest| self.0.path(digest)).collect())
    }

    /// Makes those of `layers` that are missing, and the base if that is. Dropped before its end it leaves nothing.
    ///
    /// # Errors
    /// Why one could not be made; those before it are there.
    pub async fn make(&self, layers: &[Layer], origin: &Origin, say: Say<'_>) -> Result<Vec<Layer>, LayersError> {
        if self.missing(layers).is_empty() {
            return Ok(Vec::new());
        }
        let origin = self.origin(origin);
        let _busy = self.busy(say).await;
        let missing = self.missing(layers);
        for layer in &missing {
            let base = if *layer == Layer::Base { None } else { self.current().remove(&Layer::Base) };
            let made = self.make_one(*layer, base.as_ref(), origin, say).await?;
            self.0.enter([(*layer, made)])?;
        }
        Ok(missing)
    }

    /// Makes anew what has other packages by now. All or nothing: current dynos and builds never see a half of it.
    ///
    /// # Errors
    /// Why one could not be made; then nothing is changed.
    pub async fn update(&self, origin: &Origin, say: Say<'_>) -> Result<Vec<Layer>, LayersError> {
        let origin = self.origin(origin);
        let _busy = self.busy(say).await;
        let old = self.current();
        if old.is_empty() {
            return Err(LayersError::Missing(vec![Layer::Base]));
        }
        say("Looking for newer packages");
        let layers: Vec<Layer> = old.keys().copied().collect();
        let look = Workshop::new(&self.0.dir);
        let candidates = make::candidates(&self.0.dir, &look.name, &layers, origin).await?;
        drop(look);
        let stale = stale(&old, &candidates);
        let mut base = old[&Layer::Base].clone();
        let mut fresh = Vec::new();
        for layer in &stale {
            let below = (*layer != Layer::Base).then_some(&base);
            let made = self.make_one(*layer, below, origin, say).await?;
            if *layer == Layer::Base {
                base = made.clone();
            }
            fresh.push((*layer, made));
        }
        self.0.enter(fresh)?;
        Ok(stale)
    }

    fn origin<'a>(&'a self, asked: &'a Origin) -> &'a Origin {
        if asked.mirrors.is_empty() { &self.0.origin } else { asked }
    }

    async fn busy(&self, say: Say<'_>) -> tokio::sync::OwnedMutexGuard<()> {
        let busy = Arc::clone(&self.0.busy);
        if let Ok(guard) = Arc::clone(&busy).try_lock_owned() {
            return guard;
        }
        say("Waiting for other work on the stack to end");
        busy.lock_owned().await
    }

    async fn make_one(
        &self,
        layer: Layer,
        base: Option<&Made>,
        origin: &Origin,
        say: Say<'_>,
    ) -> Result<Made, LayersError> {
        let began = Instant::now();
        say(&format!("Making the {layer} layer of debian-13"));
        let workshop = Workshop::new(&self.0.dir);
        fs::create_dir(&workshop.tree).map_err(at(&workshop.tree))?;
        let order = Order {
            layer,
            dir: &self.0.dir,
            tree: &workshop.name,
            base: base.map(|base| base.digest.as_str()),
            origin,
        };
        let mut packages = make::make(&order, &|step| say(&format!("  {step}"))).await?;
        if let Some(base) = base {
            packages.retain(|package, version| base.packages.get(package) != Some(version));
        }
        let inner = Arc::clone(&self.0);
        let settled = tokio::task::spawn_blocking(move || {
            let bytes = seal::seal(&workshop.tree, layer != Layer::Base).map_err(at(&workshop.tree))?;
            let digest = digest_of_tree(&workshop.tree)?;
            inner.put_in_place(&workshop.tree, &digest)?;
            Ok::<_, LayersError>((digest, bytes))
        });
        let (digest, bytes) = settled.await.map_err(|_| LayersError::Interrupted)??;
        say(&format!("  done: {} MB in {} s", bytes / 1_000_000, began.elapsed().as_secs()));
        let base = base.map(|base| base.digest.clone());
        Ok(Made { digest, base, recipe: recipe::digest(layer), packages, bytes, made_at: Timestamp::now() })
    }

    /// Removes layers that nothing needs: neither new dynos, nor those whose root has one of `in_use`, nor a launch on
    /// its way.
    ///
    /// # Errors
    /// What can't be read or removed.
    pub fn collect(&self, in_use: &BTreeSet<PathBuf>) -> io::Result<()> {
        let Ok(_busy) = self.0.busy.try_lock() else { return Ok(()) };
        for digest in self.0.superseded()? {
            let place = self.0.path(&digest);
            if in_use.contains(&place) || self.0.is_leased(&digest) {
                continue;
            }
            // First it loses its name, which would promise that it is complete.
            let gone = self.0.dir.join(format!("{HALF_MADE}{}", uuid::Uuid::new_v4()));
            fs::rename(place, &gone)?;
            tree::remove(&gone)?;
        }
        Ok(())
    }

    /// Whether there are layers that new dynos would not get.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn has_superseded(&self) -> io::Result<bool> {
        Ok(!self.0.superseded()?.is_empty())
    }

    /// Whether this is the place of such a layer.
    pub fn is_superseded(&self, layer: &Path) -> bool {
        let digest = layer.strip_prefix(&self.0.dir).ok().and_then(|name| name.to_str()?.parse().ok());
        digest.is_some_and(|digest| !self.0.is_current(&digest))
    }

    pub(super) fn parts(&self) -> (&Path, &SlugStore, Arc<tokio::sync::Mutex<()>>) {
        (&self.0.dir, &self.0.slugs, Arc::clone(&self.0.busy))
    }

    /// Gives a sealed tree that has this digest its name.
    pub(super) fn put_in_place(&self, tree: &Path, digest: &Digest) -> Result<(), LayersError> {
        self.0.put_in_place(tree, digest)
    }

    pub(super) fn enter(&self, fresh: impl IntoIterator<Item = (Layer, Made)>) -> Result<(), LayersError> {
        self.0.enter(fresh)
    }
}

impl Inner {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.as_str())
    }

    fn put_in_place(&self, tree: &Path, digest: &Digest) -> Result<(), LayersError> {
        let place = self.path(digest);
        if !place.is_dir() {
            // The name promises the contents, so they have to be on the disk before it is given.
            let synced = File::open(tree).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
            synced.and_then(|()| fs::rename(tree, &place)).map_err(at(&place))?;
        }
        lock(&self.leases).insert(digest.clone(), Instant::now());
        Ok(())
    }

    /// Makes these the layers of new dynos.
    fn enter(&self, fresh: impl IntoIterator<Item = (Layer, Made)>) -> Result<(), LayersError> {
        let mut generation = lock(&self.generation);
        let mut next = generation.clone();
        next.extend(fresh);
        let path = self.dir.join(CURRENT);
        let text = serde_json::to_vec_pretty(&next).expect("names and texts are always JSON");
        let write = || {
            let new = self.dir.join(format!("{HALF_MADE}{CURRENT}"));
            fs::write(&new, text)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(at(&path))?;
        *generation = next;
        Ok(())
    }

    fn superseded(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let digest = entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            found.extend(digest.filter(|digest| !self.is_current(digest)));
        }
        Ok(found)
    }

    fn is_current(&self, digest: &Digest) -> bool {
        lock(&self.generation).values().any(|made| made.digest == *digest || made.base.as_ref() == Some(digest))
    }

    fn is_leased(&self, digest: &Digest) -> bool {
        lock(&self.leases).get(digest).is_some_and(|since| since.elapsed() < LEASE)
    }
}

/// What `current.json` names and is there.
fn read_current(dir: &Path) -> Result<Generation, LayersError> {
    let path = dir.join(CURRENT);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Generation::new()),
        text => text.map_err(at(&path))?,
    };
    let mut generation: Generation =
        serde_json::from_slice(&text).map_err(|error| at(&path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    generation.retain(|_, made| dir.join(made.digest.as_str()).is_dir());
    Ok(generation)
}

/// The layers that would have other packages if they were made now; all of them when the base is among them.
fn stale(old: &Generation, candidates: &BTreeMap<String, String>) -> Vec<Layer> {
    let newer = |made: &Made| {
        made.packages.iter().any(|(package, version)| candidates.get(package).is_some_and(|other| other != version))
    };
    let stale = |layer: &Layer| Debian::is_of_another_list(*layer, &old[layer]) || newer(&old[layer]);
    let base = old.get(&Layer::Base).is_none_or(|_| stale(&Layer::Base));
    // In the order of `Layer`, the base first.
    old.keys().copied().filter(|layer| base || stale(layer)).collect()
}

/// Names for what is made in the stack's directory; what is left of it is removed at the end.
pub(super) struct Workshop {
    pub(super) name: String,
    pub(super) tree: PathBuf,
    dir: PathBuf,
}

impl Workshop {
    pub(super) fn new(dir: &Path) -> Self {
        let name = format!("{HALF_MADE}{}", uuid::Uuid::new_v4());
        Self { tree: dir.join(&name), dir: dir.to_owned(), name }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let paths = ["", ".work", ".all", ".list"].map(|end| self.dir.join(format!("{}{end}", self.name)));
        if paths.iter().all(|path| !path.exists()) {
            return;
        }
        // A tool that is being killed may still write; this takes a while and nobody has to wait for it.
        std::thread::spawn(move || {
            for _ in 0..50 {
                if paths.iter().filter(|path| seal::remove(path).is_err()).count() == 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stack::Language;

    const NODE: Layer = Layer::Language(Language::Nodejs);
    const PYTHON: Layer = Layer::Language(Language::Python);

    struct Box_ {
        root: tempfile::TempDir,
        debian: Debian,
    }

    fn opened() -> Box_ {
        let root = tempfile::tempdir().unwrap();
        let debian = Debian::open(root.path(), SlugStore::open(root.path()).unwrap(), Origin::default()).unwrap();
        Box_ { root, debian }
    }

    impl Box_ {
        /// As if it had been made on `base`.
        fn enter(&self, layer: Layer, text: &str, base: Option<&Digest>, packages: &[(&str, &str)]) -> Digest {
            let workshop = Workshop::new(&self.root.path().join("stacks/debian-13"));
            fs::create_dir(&workshop.tree).unwrap();
            fs::write(workshop.tree.join("file"), text).unwrap();
            let digest = digest_of_tree(&workshop.tree).unwrap();
            self.debian.put_in_place(&workshop.tree, &digest).unwrap();
            let packages = packages.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
            let made = Made {
                digest: digest.clone(),
                base: base.cloned(),
                recipe: recipe::digest(layer),
                packages,
                bytes: 1,
                made_at: Timestamp::UNIX_EPOCH,
            };
            self.debian.enter([(layer, made)]).unwrap();
            digest
        }

        fn names(&self, layers: &[Layer]) -> Vec<String> {
            let paths = self.debian.paths(layers).unwrap();
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        }

        fn forget_leases(&self) {
            lock(&self.debian.0.leases).clear();
        }
    }

    #[test]
    fn layers_lie_on_the_base_that_they_were_made_on() {
        let this = opened();
        let error = this.debian.paths(&[NODE]).unwrap_err().to_string();
        assert!(error.starts_with("debian-13 has no base and no nodejs layer on this box"), "{error}");
        let first = this.enter(Layer::Base, "1", None, &[]);
        let node = this.enter(NODE, "node", Some(&first), &[]);
        let second = this.enter(Layer::Base, "2", None, &[]);
        let python = this.enter(PYTHON, "python", Some(&second), &[]);
        let s = |digests: &[&Digest]| digests.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(this.names(&[NODE]), s(&[&node, &first]));
        assert_eq!(this.names(&[PYTHON]), s(&[&python, &second]));
        assert_eq!(this.names(&[NODE, PYTHON]), s(&[&node, &python, &second]));
        assert_eq!(this.names(&[]), s(&[&second]));
    }

    #[test]
    fn what_was_entered_is_there_after_a_restart() {
        let this = opened();
        let base = this.enter(Layer::Base, "1", None, &[("libc6", "2")]);
        let half = this.root.path().join("stacks/debian-13/tmp-x");
        fs::create_dir(&half).unwrap();
        let again =
            Debian::open(this.root.path(), SlugStore::open(this.root.path()).unwrap(), Origin::default()).unwrap();
        assert_eq!(again.current(), this.debian.current());
        assert!(!half.exists());
        fs::remove_dir_all(this.root.path().join("stacks/debian-13").join(base.as_str())).unwrap();
        let again =
            Debian::open(this.root.path(), SlugStore::open(this.root.path()).unwrap(), Origin::default()).unwrap();
        assert_eq!(again.missing(&[]), [Layer::Base]);
    }

    #[test]
    fn only_what_nothing_needs_is_collected() {
        let this = opened();
        let old_base = this.enter(Layer::Base, "1", None, &[]);
        let old_node = this.enter(NODE, "node 1", Some(&old_base), &[]);
        let running = this.debian.paths(&[NODE]).unwrap();
        let base = this.enter(Layer::Base, "2", None, &[]);
        let node = this.enter(NODE, "node 2", Some(&base), &[]);
        let exist = || [&old_base, &old_node, &base, &node].map(|digest| this.debian.0.path(digest).is_dir());

        this.debian.collect(&BTreeSet::new()).unwrap();
        assert_eq!(exist(), [true; 4], "a launch may be on its way");
        this.forget_leases();
        this.debian.collect(&running.into_iter().collect()).unwrap();
        assert!(this.debian.has_superseded().unwrap());
        assert_eq!(exist(), [true; 4], "a dyno runs on it");
        this.debian.collect(&BTreeSet::new()).unwrap();
        assert!(!this.debian.has_superseded().unwrap());
        assert_eq!(exist(), [false, false, true, true]);
    }

    #[test]
    fn a_layer_is_stale_when_its_packages_or_its_base_are() {
        let this = opened();
        let base = this.enter(Layer::Base, "1", None, &[("libc6", "2")]);
        this.enter(NODE, "n", Some(&base), &[("nodejs", "20")]);
        this.enter(PYTHON, "p", Some(&base), &[("python3", "3")]);
        let stale = |candidates: &[(&str, &str)]| {
            let candidates = candidates.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect();
            stale(&this.debian.current(), &candidates)
        };
        assert_eq!(stale(&[("libc6", "2"), ("nodejs", "20"), ("python3", "3"), ("other", "1")]), []);
        assert_eq!(stale(&[("libc6", "2"), ("nodejs", "21"), ("python3", "3")]), [NODE]);
        assert_eq!(stale(&[("libc6", "3"), ("nodejs", "20")]), [Layer::Base, NODE, PYTHON]);
    }
}
