//! The files of one app's log: `1.log`, `2.log`, …, the highest being written.
//!
//! One JSON object a line. A file begins with a [`Record::Ledger`], which carries on what older files knew about how far
//! each launch had been stored, so that deleting the oldest file forgets no launch. Nothing is synced: the numbers only
//! matter while the dynos of this boot live, and those end with the machine.
#![forbid(unsafe_code)]

use crate::domain::dyno::DynoId;
use crate::domain::log::LogFrame;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Ledger { ledger: Vec<(DynoId, u64)> },
    Frame(LogFrame),
}

#[derive(Serialize)]
struct LedgerRef<'a> {
    ledger: &'a [(DynoId, u64)],
}

/// The file being written.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// All of it that is whole lines.
    bytes: u64,
}

/// What the files of an app tell when they are opened.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The newest lines, oldest first.
    pub(super) frames: VecDeque<Arc<LogFrame>>,
    pub(super) last: HashMap<DynoId, u64>,
}

impl Segment {
    /// Opens the newest file for writing after reading what is stored: whole files backwards until there are `lines`
    /// lines. Without a file there is none open yet either; [`Segment::begin`] makes the first.
    pub(super) fn open(dir: &Path, lines: usize) -> io::Result<(Option<Self>, Stored)> {
        let numbers = numbers(dir)?;
        let mut stored = Stored::default();
        let mut ledger_found = false;
        for number in numbers.iter().rev() {
            if ledger_found && stored.frames.len() >= lines {
                break;
            }
            ledger_found |= stored.prepend(&fs::read(path(dir, *number))?);
        }
        let excess = stored.frames.len().saturating_sub(lines);
        stored.frames.drain(..excess);
        let segment = numbers.last().map(|number| Self::reopen(dir, *number)).transpose()?;
        Ok((segment, stored))
    }

    /// Cuts off what a killed server had written of its last line.
    fn reopen(dir: &Path, number: u64) -> io::Result<Self> {
        let path = path(dir, number);
        let contents = fs::read(&path)?;
        let whole = contents.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let file = File::options().append(true).open(&path)?;
        let bytes = u64::try_from(whole).unwrap_or(u64::MAX);
        if whole < contents.len() {
            file.set_len(bytes)?;
        }
        Ok(Self { file, bytes })
    }

    /// Begins the next file and deletes the oldest beyond `keep`.
    pub(super) fn begin(dir: &Path, ledger: &HashMap<DynoId, u64>, keep: usize) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let numbers = numbers(dir)?;
        let number = numbers.last().map_or(1, |newest| newest + 1);
        let path = path(dir, number);
        let file = File::options().append(true).create_new(true).open(&path)?;
        let mut segment = Self { file, bytes: 0 };
        let ledger: Vec<(DynoId, u64)> = ledger.iter().map(|(dyno, n)| (*dyno, *n)).collect();
        let mut line = serde_json::to_vec(&LedgerRef { ledger: &ledger })?;
        line.push(b'\n');
        if let Err(e) = segment.append(&line) {
            fs::remove_file(&path)?;
            return Err(e);
        }
        let excess = (numbers.len() + 1).saturating_sub(keep.max(1));
        for old in &numbers[..excess] {
            fs::remove_file(self::path(dir, *old))?;
        }
        Ok(segment)
    }

    /// Whole lines, by one `write(2)`; on an error the file is as before.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all(lines) {
            self.file.set_len(self.bytes)?;
            return Err(e);
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Stored {
    /// Adds an older file's lines before those known. Says whether the file began with its ledger.
    fn prepend(&mut self, contents: &[u8]) -> bool {
        let mut ledger_found = false;
        let mut frames: VecDeque<Arc<LogFrame>> = VecDeque::new();
        for line in contents.split(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Record::Ledger { ledger }) => {
                    ledger_found = true;
                    for (dyno, n) in ledger {
                        self.note(dyno, n);
                    }
                }
                Ok(Record::Frame(frame)) => {
                    if let Some((dyno, n)) = frame.origin {
                        self.note(dyno, n);
                    }
                    frames.push_back(Arc::new(frame));
                }
                // A line cut short by a crash, or one written by a version that knows more.
                Err(_) => {}
            }
        }
        frames.append(&mut self.frames);
        self.frames = frames;
        ledger_found
    }

    fn note(&mut self, dyno: DynoId, n: u64) {
        let last = self.last.entry(dyno).or_insert(n);
        *last = n.max(*last);
    }
}

/// The line that stands for `frame` in a file.
pub(super) fn encode(frame: &LogFrame, out: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, frame)?;
    out.push(b'\n');
    Ok(())
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.log"))
}

/// The numbers of the files there are, ascending.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
