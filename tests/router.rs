//! The router: the real process with real dynos' ends on loopback.
#![forbid(unsafe_code)]

#[path = "router/codes.rs"]
mod codes;
#[path = "router/forwarding.rs"]
mod forwarding;
#[path = "router/process.rs"]
mod process;
#[path = "router/rig.rs"]
mod rig;
#[path = "router/smuggling.rs"]
mod smuggling;
