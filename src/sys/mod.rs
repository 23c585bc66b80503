//! The kernel: the only place with `unsafe`. Safe functions over owned types; knows nothing of dynos.
#![expect(unsafe_code, reason = "the one place where system calls are wrapped")]

pub mod cgroup;
pub mod mount;
pub mod netlink;
pub mod trial;
