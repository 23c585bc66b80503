//! Capabilities: dropped, never raised.

use caps::{CapSet, CapsHashSet};
use std::io;

/// Empties the bounding set, so that no program started later can get one. Needs `CAP_SETPCAP`.
///
/// # Errors
/// `prctl(2)`.
pub fn drop_bounding() -> io::Result<()> {
    caps::clear(None, CapSet::Bounding).map_err(io::Error::other)
}

/// Empties all other sets.
///
/// # Errors
/// `capset(2)`, `prctl(2)`.
pub fn drop_all() -> io::Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    let none = CapsHashSet::new();
    caps::set(None, CapSet::Inheritable, &none).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &none).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &none).map_err(io::Error::other)
}
