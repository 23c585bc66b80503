//! hokku: Heroku for one Linux box, without Docker.
//!
//! See `ARCHITECTURE.md` for the processes and flows. The order below is the order of layers: a module imports only
//! those above it, and modules of one layer never each other (`tests/tidy.rs` checks that).

// 0
pub mod domain;
pub mod sys;
// 1
pub mod install;
pub mod logs;
pub mod slug;
pub mod store;
pub mod tls;
pub mod wire;
// 2
pub mod client;
pub mod drains;
pub mod dyno;
pub mod router;
pub mod stack;
// 3
pub mod build;
pub mod doctor;
// 4
pub mod backup;
pub mod supervisor;
// 5
pub mod control;
// 6
pub mod api;
pub mod cli;
pub mod git;
// 7
pub mod server;
