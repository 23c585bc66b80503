//! What the CLI, the git hook, the shim and the server say to each other beyond the Platform API.
#![forbid(unsafe_code)]

pub mod attach;
