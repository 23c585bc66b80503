//! Placeholder.
#![forbid(unsafe_code)]
use std::path::PathBuf;
#[derive(Clone, Debug)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
}
#[derive(Clone, Debug)]
pub struct Stack {
    pub name: String,
    pub id: String,
    pub base: PathBuf,
    pub binds: Vec<Bind>,
}
