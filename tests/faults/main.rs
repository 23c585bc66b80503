//! Faults: whoever dies at whatever moment, nothing is lost and nothing is left behind.
//!
//! `rounds` kills processes of an instance at random, by a seed; the others stage one fault each. They need root.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and may say what it saw")]

mod chance;
#[path = "../deploy/hokku.rs"]
#[expect(dead_code, reason = "it is made for the tests of the whole path, which need more of it")]
mod hokku;
mod ledger;
mod load;
mod machine;
mod requests;
mod rounds;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod staged;
