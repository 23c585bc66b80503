//! Dynos on the real kernel. Needs root.

mod life;
mod recovery;
mod snapshot;
mod stage;
mod walls;
