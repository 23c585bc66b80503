//! The router: the real process with real dynos' ends on loopback.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "router/codes.rs"]
mod codes;
#[path = "router/forwarding.rs"]
mod forwarding;
#[path = "router/hold.rs"]
mod hold;
#[path = "router/process.rs"]
mod process;
#[path = "router/rig.rs"]
mod rig;
#[path = "router/smuggling.rs"]
mod smuggling;
#[path = "router/tls.rs"]
mod tls;
#[path = "router/upgrade.rs"]
mod upgrade;
