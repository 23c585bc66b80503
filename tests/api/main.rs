//! The API as clients see it: real listeners, a real store, and dynos that only pretend.
//!
//! Each test is a conversation; the snapshot has all of it, with ids, times and secrets left out.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected has failed")]

mod access;
mod accounts;
mod addons;
mod apps;
mod audit;
mod bounds;
mod builds;
mod certs;
mod config;
mod docs;
mod domains;
mod dynos;
mod egress;
mod engine;
mod grants;
mod log_drains;
mod logs;
mod permissions;
mod pipelines;
mod releases;
mod schema;
mod server;
mod standing;
mod tls;
