//! The kernel: the only place with `unsafe`. Safe functions over owned types; knows nothing of dynos.
#![expect(unsafe_code, reason = "the one place where system calls are wrapped")]

pub mod confine;
