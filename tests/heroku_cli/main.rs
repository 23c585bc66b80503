//! Heroku's own CLI, unmodified from npm, against a real server: what it prints, and by a second way what it did.
//!
//! Each test has an instance of its own. They need root, and npm's registry once: the program is kept in
//! `~/.cache/hokku-tests`. One call of it takes more than a second, so a test is a long conversation.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and may say what it saw"
)]

mod access;
mod addons;
mod apps;
mod certs;
mod domains;
mod drains;
mod dynos;
mod git;
mod heroku;
#[path = "../deploy/hokku.rs"]
#[expect(dead_code, reason = "it is made for the tests of the whole path, which need more of it")]
mod hokku;
mod logs;
mod people;
mod pipelines;
mod releases;
mod run;
#[path = "../support/tty.rs"]
#[expect(dead_code, reason = "made for hokku's own commands too")]
mod tty;
