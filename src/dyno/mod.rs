//! Empty room.
#![forbid(unsafe_code)]

pub mod instances;
