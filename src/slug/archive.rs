//! Reading a tar archive that anybody may have made.
//!
//! Headers are read one by one rather than through `tar::Archive`, so that every number in them is checked before it is
//! believed: a long name or a pax record is bounded before it is kept, and an archive without its end is noticed. Knows
//! POSIX ustar and pax and GNU's long names, which is what tar, git, npm, Python and Go write.
#![forbid(unsafe_code)]

use super::refusal::{Name, Refusal};
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use tar::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// Bytes of one pax record or long name. A path has at most 4096.
const LONGEST_EXTENSION: u64 = 64 << 10;
/// Unpacked bytes below which the ratio to the packed ones is not looked at: a few very empty files are no bomb.
pub(super) const RATIO_FROM: u64 = 256 << 20;

/// What one entry is; its bytes follow in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64, executable: bool },
    Dir,
    Symlink { target: Vec<u8> },
    HardLink { target: Vec<u8> },
}

/// Bounds on the whole stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) ratio: u64,
}

pub(super) struct TarReader<R> {
    input: R,
    /// Bytes of the current entry that nobody has read, and the padding after them.
    unread: u64,
    padding: u64,
    /// A header has been read, so it is an archive.
    begun: bool,
}

/// What headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, unread: 0, padding: 0, begun: false }
    }

    /// The next entry, or `None` at the archive's end mark.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Refusal> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let mut block = [0; BLOCK];
            self.fill(&mut block).map_err(|refusal| match refusal {
                Refusal::Truncated if !self.begun => Refusal::NotAnArchive,
                refusal => refusal,
            })?;
            if block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            match sum_is_right(&block, header) {
                true => self.begun = true,
                false if self.begun => return Err(Refusal::Damaged("a header's checksum is wrong".into())),
                false => return Err(Refusal::NotAnArchive),
            }
            let size = header.entry_size().map_err(|_| Refusal::Damaged("a size is no number".into()))?;
            let size = plausible(size)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(c_string(self.extension(size)?)),
                EntryType::GNULongLink => extensions.target = Some(c_string(self.extension(size)?)),
                EntryType::XHeader => read_pax(&self.extension(size)?, &mut extensions)?,
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => return self.entry(header, kind, size, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: EntryType, size: u64, extra: Extensions) -> Result<Entry, Refusal> {
        let path = extra.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let target = || {
            let target = extra.target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            target.unwrap_or_default()
        };
        let special = |what: &str| Refusal::Special { path: Name::new(&path), what: what.to_owned() };
        let kind = match kind {
            // Before there was a type for directories they were files with a slash at the end.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => {
                let size = plausible(extra.size.unwrap_or(size))?;
                let mode = header.mode().map_err(|_| Refusal::Damaged("a mode is no number".into()))?;
                self.unread = size;
                self.padding = size.next_multiple_of(BLOCK as u64) - size;
                Kind::File { size, executable: mode & 0o111 != 0 }
            }
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink { target: target() },
            EntryType::Link => Kind::HardLink { target: target() },
            EntryType::Char | EntryType::Block => return Err(special("device")),
            EntryType::Fifo => return Err(special("named pipe")),
            EntryType::GNUSparse => return Err(special("sparse file")),
            _ => return Err(special("thing of an unknown kind")),
        };
        if !matches!(kind, Kind::File { .. }) && size != 0 {
            return Err(Refusal::Damaged("something other than a file has contents".into()));
        }
        Ok(Entry { path, kind })
    }

    /// The contents of a header that only describes the next entry.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Refusal> {
        if size > LONGEST_EXTENSION {
            return Err(Refusal::Damaged(format!("a name or record of {size} bytes")));
        }
        let mut contents = vec![0; usize::try_from(size).unwrap_or(0)];
        self.fill(&mut contents)?;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(contents)
    }

    /// Appends the current entry's next `size` bytes to `buffer`; there must be as many left.
    pub(super) fn read_contents(&mut self, size: u64, buffer: &mut Vec<u8>) -> Result<(), Refusal> {
        let read = self.input.by_ref().take(size).read_to_end(buffer).map_err(|e| refusal_of(&e))?;
        self.unread -= size;
        if (read as u64) < size { Err(Refusal::Truncated) } else { Ok(()) }
    }

    /// Reads to the stream's end, so that bytes after the archive's end are bounded and checked like the others.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(|e| refusal_of(&e))
    }

    fn skip_rest(&mut self) -> Result<(), Refusal> {
        let rest = self.unread + self.padding;
        (self.unread, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).map_err(|e| refusal_of(&e))?;
        if skipped < rest { Err(Refusal::Truncated) } else { Ok(()) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Refusal> {
        self.input.read_exact(buffer).map_err(|e| refusal_of(&e))
    }
}

/// Far above every limit, and far below where adding to it could overflow.
fn plausible(size: u64) -> Result<u64, Refusal> {
    if size < 1 << 50 { Ok(size) } else { Err(Refusal::Damaged(format!("a size of {size} bytes"))) }
}

fn sum_is_right(block: &[u8; BLOCK], header: &Header) -> bool {
    let spaces = 8 * u32::from(b' ');
    let sum = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + spaces;
    header.cksum().ok() == Some(sum)
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn read_pax(records: &[u8], into: &mut Extensions) -> Result<(), Refusal> {
    let damaged = || Refusal::Damaged("a pax record that cannot be read".into());
    for record in PaxExtensions::new(records) {
        let record = record.map_err(|_| damaged())?;
        match record.key_bytes() {
            b"path" => into.path = Some(record.value_bytes().to_vec()),
            b"linkpath" => into.target = Some(record.value_bytes().to_vec()),
            b"size" => into.size = Some(record.value().ok().and_then(|size| size.parse().ok()).ok_or_else(damaged)?),
            key if key.starts_with(b"GNU.sparse") => return Err(Refusal::Damaged("it holds a sparse file".into())),
            _ => {}
        }
    }
    Ok(())
}

/// The tar stream inside whatever it is packed in, told by its first bytes, and bounded.
pub(super) fn decompress<'a>(input: impl Read + 'a, bounds: Bounds) -> Result<Box<dyn Read + 'a>, Refusal> {
    let packed = Rc::new(Cell::new(0));
    let mut input = BufReader::with_capacity(256 << 10, Counted { input, count: packed.clone() });
    let start = input.fill_buf().map_err(|e| refusal_of(&e))?;
    let stream: Box<dyn Read> = match start {
        [] => return Err(Refusal::Truncated),
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::Decoder::with_buffer(input).map_err(|e| refusal_of(&e))?)
        }
        _ => Box::new(input),
    };
    Ok(Box::new(Bounded { stream, packed, unpacked: 0, bounds }))
}

struct Counted<R> {
    input: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

struct Bounded<R> {
    stream: R,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    bounds: Bounds,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.unpacked += read as u64;
        if self.unpacked > self.bounds.bytes {
            return Err(io::Error::other(Refusal::TooLarge(self.bounds.bytes / 1_000_000)));
        }
        if self.unpacked > RATIO_FROM && self.unpacked / self.packed.get().max(1) > self.bounds.ratio {
            return Err(io::Error::other(Refusal::Bomb(self.bounds.ratio)));
        }
        Ok(read)
    }
}

/// Decoders report damage as errors of reading; a refusal of ours travels inside one.
fn refusal_of(error: &io::Error) -> Refusal {
    if let Some(refusal) = error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()) {
        return refusal.clone();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::Truncated,
        _ => Refusal::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, ratio: 100 };

    fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Refusal> {
        let mut tar = TarReader::new(decompress(bytes, BOUNDS)?);
        let mut entries = Vec::new();
        while let Some(entry) = tar.next()? {
            entries.push(entry);
        }
        tar.finish().map(|()| entries)
    }

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o755);
        tar.append_data(&mut header, "a".repeat(200), &b"abc"[..]).unwrap();
        tar.append_pax_extensions([("path", &b"from/pax"[..])]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, "short", &b""[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn reads_long_names_of_both_kinds_in_all_packings() {
        let plain = archive();
        let expected = [
            Entry { path: "a".repeat(200).into(), kind: Kind::File { size: 3, executable: true } },
            Entry { path: b"from/pax".into(), kind: Kind::File { size: 0, executable: false } },
        ];
        assert_eq!(entries(&plain).unwrap(), expected);
        assert_eq!(entries(&zstd::encode_all(&*plain, 3).unwrap()).unwrap(), expected);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        assert_eq!(entries(&gzip.finish().unwrap()).unwrap(), expected);
    }

    #[test]
    fn an_archive_without_its_end_is_cut_off_wherever_it_was_cut() {
        let plain = archive();
        let end = plain.len() - 1024;
        for length in (512..=end).step_by(101).chain([end]) {
            assert_eq!(entries(&plain[..length]), Err(Refusal::Truncated), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = entries(&bytes);
        }

        #[test]
        fn a_changed_archive_is_read_or_refused(at in 0usize..2048, byte: u8) {
            let mut bytes = archive();
            bytes[at] = byte;
            let _ = entries(&bytes);
        }
    }
}
