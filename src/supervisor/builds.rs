//! The queue of builds.
#![forbid(unsafe_code)]
