//! Dynos on the real kernel. Needs root.

mod life;
mod recovery;
mod stage;
