//! Dynos on the real kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod life;
mod recovery;
mod snapshot;
mod stage;
mod walls;
