//! Empty room.
#![forbid(unsafe_code)]
