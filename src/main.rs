//! The `hokku` binary: picks the role.
#![forbid(unsafe_code)]

fn main() {}
