//! The whole path, for real: git push or a tarball, build in a sandbox, slug, release, dynos, router, logs.
//!
//! Every test has an instance of its own and leaves nothing behind. They need root.

mod faults;
mod hokku;
mod isolation;
mod push;
mod release;
mod run;
mod traffic;
