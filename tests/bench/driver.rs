//! The parts of `scripts/bench` that need hokku's library: launches dynos without a server, packs and unpacks slugs.
//! Everything measured runs in hokku's own binary where it has a process of its own (launcher, shim, unpacking).
#![forbid(unsafe_code)]

mod launch;
mod slug;

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

const USAGE: &str =
    "usage: bench launch HOKKU ROOT NAME TREE | bench pack HOKKU ROOT TREE | bench unpack HOKKU ROOT DIGEST";

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["launch", hokku, root, name, tree] => launch::serve(Path::new(hokku), Path::new(root), name, Path::new(tree)),
        ["pack", hokku, root, tree] => slug::pack(Path::new(hokku), Path::new(root), Path::new(tree)),
        ["unpack", hokku, root, digest] => slug::unpack(Path::new(hokku), Path::new(root), digest),
        _ => Err(USAGE.into()),
    }
}

/// One answer to the script: JSON on a line of its own.
fn answer(value: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
