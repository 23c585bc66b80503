//! Empty room.
#![forbid(unsafe_code)]

pub mod instances;
pub mod network;
pub mod relay;
