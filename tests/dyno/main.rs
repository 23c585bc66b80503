//! Dynos on the real kernel. Needs root.

mod life;
mod stage;
