//! Carrying layers to boxes without Internet: one `tar.zst` with the layers' trees and a manifest.
//!
//! ```text
//!  about/stack.json    which layers these are
//!  <digest>/…          each layer
//! ```
//!
//! An archive may be anybody's: it is unpacked by the confined reader, and a layer is taken only when what has been
//! written to the disk has the digest that the manifest says.
#![forbid(unsafe_code)]

use super::layers::{Debian, Generation, LayersError, Made, Workshop};
use super::seal;
use crate::domain::slug::Digest;
use crate::domain::stack::Layer;
use crate::slug::{SlugError, bundle};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

const ABOUT: &str = "about";
const MANIFEST: &str = "stack.json";
const FORMAT: u32 = 1;

/// A manifest names some hundred packages for each layer.
const LONGEST_MANIFEST: u64 = 8 << 20;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    stack: String,
    architecture: String,
    layers: Generation,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("That file is no exported stack: {0}")]
    Foreign(String),
    #[error("That stack was made for {found}, and this machine is {own}")]
    Architecture { found: String, own: &'static str },
    #[error("That file is damaged: its {layer} layer has the digest {found} instead of {expected}")]
    Damaged { layer: Layer, found: Digest, expected: Digest },
    #[error("That file is incomplete: its {0} layer is missing")]
    Incomplete(Layer),
    #[error("That file's {layer} layer needs the base {base}, which is neither in it nor on this box")]
    NoBase { layer: Layer, base: Digest },
    #[error("The disk is full: nothing was imported")]
    DiskFull,
    #[error(transparent)]
    Layers(#[from] LayersError),
    #[error("The archive can't be written")]
    Write(#[source] SlugError),
    #[error("can't read the archive")]
    Io(#[from] io::Error),
}

impl Debian {
    /// Writes the base and these layers to `out`. Blocks until that is done; nothing is collected meanwhile.
    ///
    /// # Errors
    /// Layers that are not there, or an `out` that does not take them.
    pub fn export(&self, layers: &[Layer], out: impl Write) -> Result<(), TransferError> {
        let (dir, _, busy) = self.parts();
        let _busy = busy.blocking_lock();
        let missing = self.missing(layers);
        if !missing.is_empty() {
            return Err(LayersError::Missing(missing).into());
        }
        let mut chosen = self.current();
        chosen.retain(|layer, _| *layer == Layer::Base || layers.contains(layer));
        let about = Workshop::new(dir);
        write_manifest(&about.tree, &chosen)?;
        let mut digests: Vec<&Digest> =
            chosen.values().flat_map(|made| [Some(&made.digest), made.base.as_ref()]).flatten().collect();
        digests.sort_unstable();
        digests.dedup();
        let paths: Vec<PathBuf> = digests.iter().map(|digest| dir.join(digest.as_str())).collect();
        let trees = digests.iter().zip(&paths).map(|(digest, path)| (digest.as_str(), path.as_path()));
        let trees: Vec<(&str, &Path)> = [(ABOUT, about.tree.as_path())].into_iter().chain(trees).collect();
        bundle(&trees, out).map_err(TransferError::Write)
    }

    /// Takes in what [`Debian::export`] has written, for new dynos of this box. Blocks until that is done.
    ///
    /// # Errors
    /// A file that is none, is damaged, or is for another kind of machine. Then nothing is changed.
    pub fn import(&self, archive: &Path) -> Result<Generation, TransferError> {
        let (dir, slugs, busy) = self.parts();
        let _busy = busy.blocking_lock();
        let unpacked = Workshop::new(dir);
        slugs.unpack_tree(archive, &unpacked.tree, false).map_err(|error| match error {
            SlugError::Refused(refusal) => TransferError::Foreign(refusal.to_string()),
            SlugError::Unpack(message) if message.contains("os error 28") => TransferError::DiskFull,
            error => LayersError::Read(error).into(),
        })?;
        let manifest = read_manifest(&unpacked.tree)?;
        for (layer, made) in &manifest.layers {
            self.take(&unpacked.tree, *layer, &made.digest, *layer != Layer::Base)?;
            match &made.base {
                Some(base) if !dir.join(base.as_str()).is_dir() => {
                    let missing = || TransferError::NoBase { layer: *layer, base: base.clone() };
                    self.take(&unpacked.tree, *layer, base, false).map_err(|error| match error {
                        TransferError::Incomplete(_) => missing(),
                        error => error,
                    })?;
                }
                _ => {}
            }
        }
        self.enter(manifest.layers.clone())?;
        Ok(manifest.layers)
    }

    /// Moves one tree to its place, if it is what it is called.
    fn take(&self, unpacked: &Path, layer: Layer, expected: &Digest, above: bool) -> Result<(), TransferError> {
        let (dir, ..) = self.parts();
        if dir.join(expected.as_str()).is_dir() {
            return Ok(());
        }
        let tree = unpacked.join(expected.as_str());
        if !tree.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(TransferError::Incomplete(layer));
        }
        seal::seal(&tree, above)?;
        let found = crate::slug::digest_of_tree(&tree).map_err(LayersError::Read)?;
        if found != *expected {
            return Err(TransferError::Damaged { layer, found, expected: expected.clone() });
        }
        Ok(self.put_in_place(&tree, expected)?)
    }
}

fn write_manifest(about: &Path, layers: &Generation) -> io::Result<()> {
    let manifest = Manifest {
        format: FORMAT,
        stack: "debian-13".into(),
        architecture: std::env::consts::ARCH.into(),
        layers: layers.clone(),
    };
    fs::create_dir(about)?;
    fs::write(about.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)
}

fn read_manifest(unpacked: &Path) -> Result<Manifest, TransferError> {
    let foreign = |what: &str| TransferError::Foreign(what.to_owned());
    let dir = openat(CWD, unpacked, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(&dir, format!("{ABOUT}/{MANIFEST}"), flags, Mode::empty(), resolve)
        .map_err(|_| foreign("it does not say what is in it"))?;
    let mut text = Vec::new();
    File::from(file).take(LONGEST_MANIFEST).read_to_end(&mut text)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| foreign("what it says of itself is unreadable"))?;
    if manifest.format != FORMAT || manifest.stack != "debian-13" {
        return Err(foreign(&format!("it holds {} in the form {}", manifest.stack, manifest.format)));
    }
    if manifest.architecture != std::env::consts::ARCH {
        return Err(TransferError::Architecture { found: manifest.architecture, own: std::env::consts::ARCH });
    }
    let sound = |(layer, made): (&Layer, &Made)| (*layer == Layer::Base) == made.base.is_none();
    if manifest.layers.is_empty() || !manifest.layers.iter().all(sound) {
        return Err(foreign("what it says of itself is unreadable"));
    }
    Ok(manifest)
}
