//! What each layer is made of: the lists below `rootfs/`, which are part of the binary.
#![forbid(unsafe_code)]

use crate::domain::stack::Layer;
use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

static LISTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rootfs/debian-13");

/// The release of Debian that the stack is of.
pub(super) const SUITE: &str = "trixie";

/// A layer's packages, in the order of its list.
pub(super) fn packages(layer: Layer) -> Vec<&'static str> {
    let text = LISTS.get_file(layer.as_str()).and_then(|file| file.contents_utf8());
    let lines = text.unwrap_or_default().lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|package| !package.is_empty()).collect()
}

/// Changes with the list, so that a layer made from an older one can be told.
pub(super) fn digest(layer: Layer) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{SUITE} {layer}\n{}", packages(layer).join("\n")));
    hex::encode(hash.finalize())
}

/// Of all lists and the way that layers are made: what was made by them can be used again as long as it is the same.
pub fn digest_of_all() -> String {
    let mut hash = Sha256::new();
    hash.update(super::make::SCRIPT);
    Layer::all().for_each(|layer| hash.update(digest(layer)));
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_has_a_list_of_package_names() {
        for layer in Layer::all() {
            let packages = packages(layer);
            assert!(!packages.is_empty(), "{layer}");
            let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
            assert!(packages.iter().all(|package| package.chars().all(name)), "{layer}: {packages:?}");
        }
        assert_eq!(LISTS.files().count(), Layer::all().count(), "a list that no layer is made of");
    }

    #[test]
    fn compilers_are_only_in_the_layer_for_builds() {
        for layer in Layer::all().filter(|layer| *layer != Layer::Compilers) {
            let packages = packages(layer);
            let compiles =
                |package: &&str| package.ends_with("-dev") || ["gcc", "make", "build-essential"].contains(package);
            assert_eq!(packages.into_iter().find(compiles), None, "{layer}");
        }
    }
}
