//! A file's bytes as memory that several processes share.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A shared mapping of a whole file. One side of a protocol writes a range and then publishes it by a word, the other
/// reads it after it has seen the word; the mapping itself knows no protocol.
#[derive(Debug)]
pub struct Shared {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is not tied to a thread, and all access to it goes through methods that bound it.
unsafe impl Send for Shared {}
// SAFETY: as above; the words are atomics, and bytes are copied in and out, never lent.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first `length` bytes of a file that is at least that long.
    ///
    /// # Errors
    /// `mmap(2)`, or the file is shorter.
    pub fn map(file: &File, length: usize) -> io::Result<Self> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its mapping"));
        }
        let protection = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let flags = rustix::mm::MapFlags::SHARED;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing existing is replaced.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, flags, file.as_fd(), 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, length })
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The 64-bit word at `8 * index`.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(8 * index + 8 <= self.length, "word {index} is outside of the mapping");
        // SAFETY: inside the mapping by the check above.
        let word = unsafe { self.start.as_ptr().add(8 * index) };
        // SAFETY: mappings begin at a page, so the word is aligned; it lives as long as self, and is only ever
        // touched as an atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "write outside of the mapping");
        // SAFETY: inside the mapping by the check above.
        let target = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: both ranges are valid for that many bytes, and a mapping never overlaps a Rust slice.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.length, "read outside of the mapping");
        // SAFETY: inside the mapping by the check above.
        let source = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: both ranges are valid for that many bytes, and a mapping never overlaps a Rust slice.
        unsafe { std::ptr::copy_nonoverlapping(source, into.as_mut_ptr(), into.len()) };
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nothing borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
