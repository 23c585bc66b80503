//! Source to slug, but for the parts that need a kernel or a store: which buildpacks, in which environment, over which
//! directories, and what their output means.
//!
//! ```text
//!  source tree ──┐
//!  buildpacks ───┼─▶ Stage (directories on disk) ──▶ compile::body ──▶ a dyno runs driver.sh ──▶ outcome::read
//!  config vars ──┘                                                     detect, compile, release      process types
//! ```
//!
//! Everything the dyno leaves behind was written by strangers' code and is read as such: bounded, no link followed out
//! of its directory. The supervisor runs the job ([`crate::supervisor::builds`]).
//!
//! The classic API lets a buildpack build anywhere, but the tools of many languages write full paths into what they
//! make. Our own packs therefore build in `/app`, where dynos will find the result, with `HOME` elsewhere. Others expect
//! Heroku's layout, a `/tmp/build_…` beside an empty, writable `/app` that is `HOME`; some break without it. One build
//! has one layout: ours when all its packs are ours, else Heroku's. (Never both at once: packs link from one to the
//! other and would make a link inside itself.)
#![forbid(unsafe_code)]

pub mod buildpack;
pub mod choice;
pub mod compile;
pub mod environment;
pub mod languages;
pub mod manifest;
pub mod outcome;
mod reading;
pub mod room;
pub mod stage;

pub use buildpack::{Buildpack, BuildpackError};
pub use choice::{Choice, ChoiceError};
pub use environment::Settings;
pub use manifest::{Manifest, ManifestError};
pub use outcome::{Outcome, OutcomeError};
pub use stage::Stage;
