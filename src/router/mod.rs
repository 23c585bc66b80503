//! The data plane: `hokku router`, an unprivileged process of its own that knows nothing but the last [`RouteTable`].
//!
//! ```text
//!  server ── handle::Router ──router.sock── control ──▶ worker (one thread and runtime a core)
//!            publish, drained   tables ▶              │ accept → request head → table → pick a dyno → forward
//!            ◀ access lines     ◀ acknowledgements    └ upstream connections, access lines
//! ```
//!
//! - Whoever is there keeps the listening sockets: the server to replace a router that died, the router to give them to
//!   the next server. They are made once and never closed, so no queued connection is ever reset.
//! - A request reads the worker's own table: no lock, no database. A dyno is picked and counted without an await in
//!   between, so that once all workers have acknowledged a table, no request can go to a dyno that is not in it.
//! - A dyno that has left the table keeps the requests and `WebSockets` it has.
//! - Framing is never passed on: both sides are parsed and written anew, so no two parties can disagree on where a
//!   request ends.
//!
//! - Private keys are in memory only: the server sends them again to every router that it starts ([`tls`]).
//!
//! Deliberately absent: HTTP/2, trailers, buffering of bodies, caches.
//!
//! [`RouteTable`]: crate::domain::route::RouteTable
#![forbid(unsafe_code)]

mod access;
mod body;
mod code;
mod control;
mod forward;
mod handle;
mod page;
mod pool;
pub mod process;
mod protocol;
mod request;
mod response;
mod settings;
mod socket;
mod table;
mod tls;
mod tunnel;
mod worker;

pub use access::Access;
pub use handle::{Options, Router, RouterError};
pub use settings::Settings;
pub use tls::Certificates;
