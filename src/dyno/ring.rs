//! The log ring: lines of one dyno between the shim that writes them and the server that stores them, in a file that
//! both have mapped. It outlives either.
//!
//! Words of the head (8 bytes each): 0 magic, 1 written, 2 taken (bytes since the beginning), 3 whether the reader wants
//! to be woken, 4 whether the writer waits for room, 5 how the dyno ended, 6 lines dropped and not yet said, 7 since
//! when. Then records, wrapping around: `[length u32][stream u8][number u64][microseconds i64][bytes]`.
//!
//! One writer, one reader: the writer moves `written` after the bytes are there, the reader moves `taken` after the
//! lines are stored. Numbers count every record, so that whoever stored the last one knows where to go on.
#![forbid(unsafe_code)]

use crate::sys::process::Ended;
use crate::sys::shm::Shared;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

const MAGIC: u64 = 0x0067_6e69_725f_6b68;
const HEAD: usize = 4096;
const ROOM: usize = 512 * 1024;
const RECORD: usize = 21;

const WRITTEN: usize = 1;
const TAKEN: usize = 2;
const WANTED: usize = 3;
const WAITING: usize = 4;
const ENDED: usize = 5;
const DROPPED: usize = 6;
const DROPPED_SINCE: usize = 7;
const NUMBER: usize = 8;

/// Which descriptor a line came from, or that lines are missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
    Dropped,
}

/// One line, or (for [`Stream::Dropped`]) a gap: then the bytes are the count and the time of the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stream: Stream,
    pub(super) number: u64,
    pub(super) micros: i64,
    pub(super) bytes: Vec<u8>,
}

impl Record {
    /// How many lines are missing, and since when (microseconds).
    pub(super) fn gap(&self) -> Option<(u64, i64)> {
        let (count, since) = self.bytes.split_first_chunk::<8>().filter(|_| self.stream == Stream::Dropped)?;
        Some((u64::from_le_bytes(*count), i64::from_le_bytes(since.try_into().ok()?)))
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    shared: Shared,
}

impl Ring {
    /// A new, empty ring.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Self::start(&file)
    }

    /// A ring that only this process and its children know.
    pub(super) fn anonymous() -> io::Result<Self> {
        let memory = rustix::fs::memfd_create("hokku-ring", rustix::fs::MemfdFlags::CLOEXEC)?;
        Self::start(&memory.into())
    }

    fn start(file: &File) -> io::Result<Self> {
        file.set_len((HEAD + ROOM) as u64)?;
        let shared = Shared::map(file, HEAD + ROOM)?;
        shared.word(0).store(MAGIC, Release);
        Ok(Self { shared })
    }

    /// A ring made by another process.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let shared = Shared::map(&file, HEAD + ROOM)?;
        if shared.word(0).load(Acquire) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a log ring"));
        }
        Ok(Self { shared })
    }

    fn get(&self, word: usize) -> u64 {
        self.shared.word(word).load(Acquire)
    }

    /// Whether a line of that many bytes and what has to be said before it have room. (Also true for a ring whose
    /// counters are nonsense, whose lines are dropped later.)
    pub(super) fn has_room(&self, length: usize) -> bool {
        let used = self.get(WRITTEN).wrapping_sub(self.get(TAKEN));
        used.saturating_add((2 * RECORD + 16 + length) as u64) <= ROOM as u64
    }

    /// Appends a line, or counts it as dropped when there is no room. Whether the reader wants to be told.
    pub(super) fn append(&self, stream: Stream, micros: i64, bytes: &[u8]) -> bool {
        if !self.has_room(bytes.len()) {
            if self.get(DROPPED) == 0 {
                self.shared.word(DROPPED_SINCE).store(micros.cast_unsigned(), Release);
            }
            self.shared.word(DROPPED).fetch_add(1, SeqCst);
            return false;
        }
        self.say_dropped(micros);
        self.put(stream, micros, bytes);
        self.shared.word(WANTED).swap(0, SeqCst) != 0
    }

    /// Puts the count of dropped lines where they are missing.
    fn say_dropped(&self, micros: i64) {
        let count = self.shared.word(DROPPED).swap(0, SeqCst);
        if count > 0 {
            let since = self.get(DROPPED_SINCE);
            self.put(Stream::Dropped, micros, &[count.to_le_bytes(), since.to_le_bytes()].concat());
        }
    }

    fn put(&self, stream: Stream, micros: i64, bytes: &[u8]) {
        let number = self.shared.word(NUMBER).fetch_add(1, Relaxed) + 1;
        let mut record = Vec::with_capacity(RECORD + bytes.len());
        record.extend(u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
        record.push(match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Dropped => 3,
        });
        record.extend(number.to_le_bytes());
        record.extend(micros.to_le_bytes());
        record.extend(bytes);
        let written = self.get(WRITTEN);
        let at = position(written);
        let (first, rest) = record.split_at(record.len().min(ROOM - at));
        self.shared.write(HEAD + at, first);
        self.shared.write(HEAD, rest);
        self.shared.word(WRITTEN).store(written + record.len() as u64, SeqCst);
    }

    /// The writer waits: [`Ring::take`] will say so when there is room. Whether it still has to wait.
    pub(super) fn wait_for_room(&self, length: usize) -> bool {
        self.shared.word(WAITING).store(1, SeqCst);
        !self.has_room(length)
    }

    /// Up to `most` records that were not taken, and what to give to [`Ring::take`] once they are stored.
    pub(super) fn peek(&self, most: usize) -> (Vec<Record>, u64) {
        let written = self.get(WRITTEN);
        let mut at = self.get(TAKEN);
        let mut records = Vec::new();
        while at < written && records.len() < most {
            let Some((record, next)) = self.record(at, written) else {
                // Nothing that a shim wrote; give up on what there is rather than read it for ever.
                return (records, written);
            };
            records.extend(record);
            at = next;
        }
        (records, at)
    }

    fn record(&self, at: u64, written: u64) -> Option<(Option<Record>, u64)> {
        let mut head = [0; RECORD];
        if written - at < RECORD as u64 || written - at > ROOM as u64 {
            return None;
        }
        self.copy(at, &mut head);
        let length = u32::from_le_bytes(head[..4].try_into().ok()?);
        let next = at + RECORD as u64 + u64::from(length);
        if next > written {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.copy(at + RECORD as u64, &mut bytes);
        let stream = match head[4] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::Dropped,
            _ => return Some((None, next)),
        };
        let number = u64::from_le_bytes(head[5..13].try_into().ok()?);
        let micros = i64::from_le_bytes(head[13..].try_into().ok()?);
        Some((Some(Record { stream, number, micros, bytes }), next))
    }

    fn copy(&self, from: u64, into: &mut [u8]) {
        let at = position(from);
        let (first, rest) = into.split_at_mut(into.len().min(ROOM - at));
        self.shared.read(HEAD + at, first);
        self.shared.read(HEAD, rest);
    }

    /// Lets go of what was read up to `mark`. Whether the writer waits for that.
    pub(super) fn take(&self, mark: u64) -> bool {
        self.shared.word(TAKEN).store(mark, SeqCst);
        self.shared.word(WAITING).swap(0, SeqCst) != 0
    }

    /// The reader has read all and wants to be told of more. False when there is more already.
    pub(super) fn want(&self) -> bool {
        self.shared.word(WANTED).store(1, SeqCst);
        self.get(WRITTEN) == self.get(TAKEN)
    }

    /// Lines that were dropped after the last one in the ring: how many, and since when.
    pub(super) fn take_dropped(&self) -> Option<(u64, i64)> {
        let count = self.shared.word(DROPPED).swap(0, SeqCst);
        (count > 0).then(|| (count, self.get(DROPPED_SINCE).cast_signed()))
    }

    /// The number that a record after the last one would have.
    pub(super) fn next_number(&self) -> u64 {
        self.get(NUMBER) + 1
    }

    /// Written by init: also a killed shim leaves it behind.
    pub(super) fn set_ended(&self, ended: Ended) {
        let word = match ended {
            Ended::Exited(code) => 1 << 32 | u64::from(code.cast_unsigned()),
            Ended::Signalled(signal) => 2 << 32 | u64::from(signal.cast_unsigned()),
        };
        self.shared.word(ENDED).store(word, SeqCst);
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        let word = self.get(ENDED);
        let low = i32::try_from(word & 0x7fff_ffff).ok()?;
        match word >> 32 {
            1 => Some(Ended::Exited(low)),
            2 => Some(Ended::Signalled(low)),
            _ => None,
        }
    }
}

fn position(counter: u64) -> usize {
    usize::try_from(counter % ROOM as u64).expect("below the ring's size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &Record) -> String {
        String::from_utf8(record.bytes.clone()).unwrap()
    }

    #[test]
    fn lines_come_out_as_they_went_in_and_stay_until_taken() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Ring::create(&dir.path().join("ring")).unwrap();
        let reader = Ring::open(&dir.path().join("ring")).unwrap();
        writer.append(Stream::Stdout, 5, b"one");
        writer.append(Stream::Stderr, 6, b"two");
        let (records, mark) = reader.peek(10);
        assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((records[1].stream, records[1].number, records[1].micros), (Stream::Stderr, 2, 6));
        assert_eq!(reader.peek(10).0, records, "a reader that crashed reads them again");
        reader.take(mark);
        assert!(reader.peek(10).0.is_empty());
        assert!(reader.want());
        assert!(writer.append(Stream::Stdout, 7, b"three"), "wakes the reader");
        assert!(!writer.append(Stream::Stdout, 7, b"four"), "but once only");
    }

    #[test]
    fn a_full_ring_drops_the_newest_and_says_how_many_and_where() {
        let ring = Ring::anonymous().unwrap();
        let line = [b'x'; 1000];
        let mut fitted = 0u64;
        for at in 0..1000 {
            if ring.has_room(line.len()) {
                fitted += 1;
            }
            ring.append(Stream::Stdout, at, &line);
        }
        let (records, mark) = ring.peek(usize::MAX);
        assert_eq!(records.len() as u64, fitted);
        ring.take(mark);
        ring.append(Stream::Stdout, 2000, b"after");
        let (records, _) = ring.peek(10);
        assert_eq!(records[0].gap(), Some((1000 - fitted, i64::try_from(fitted).unwrap())));
        assert_eq!((text(&records[1]), records[1].number), ("after".to_owned(), fitted + 2));
    }

    #[test]
    fn it_goes_round_many_times() {
        let ring = Ring::anonymous().unwrap();
        let mut expected = 0;
        for at in 0u32..20_000 {
            ring.append(Stream::Stdout, 0, at.to_string().repeat(20).as_bytes());
            if at % 97 == 0 {
                let (records, mark) = ring.peek(usize::MAX);
                for record in records {
                    assert_eq!(text(&record), u32::to_string(&expected).repeat(20));
                    expected += 1;
                }
                ring.take(mark);
            }
        }
        assert!(expected > 19_000);
    }

    #[test]
    fn how_it_ended_is_kept() {
        let ring = Ring::anonymous().unwrap();
        assert_eq!(ring.ended(), None);
        for ended in [Ended::Exited(0), Ended::Exited(255), Ended::Signalled(15)] {
            ring.set_ended(ended);
            assert_eq!(ring.ended(), Some(ended));
        }
    }
}
