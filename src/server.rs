//! The wiring.
#![forbid(unsafe_code)]
