//! Dynos on the real kernel. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod doctor;
mod egress;
mod inside;
mod life;
#[path = "../support/loopback_resolver.rs"]
mod loopback_resolver;
mod oracle;
#[path = "../support/outside.rs"]
mod outside;
mod recovery;
mod resolver;
mod snapshot;
mod stage;
mod walls;
