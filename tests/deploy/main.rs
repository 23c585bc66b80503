//! The whole path, for real: git push or a tarball, build in a sandbox, slug, release, dynos, router, logs.
//!
//! Every test has an instance of its own and leaves nothing behind. They need root.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking and may say what it saw"
)]

mod backup;
mod disk;
mod egress;
mod faults;
mod hokku;
mod hold;
mod isolation;
mod languages;
#[path = "../support/loopback_resolver.rs"]
mod loopback_resolver;
#[path = "../support/outside.rs"]
mod outside;
mod push;
mod release;
mod run;
mod runtime;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod source;
mod stack;
mod traffic;
mod upgrade;
