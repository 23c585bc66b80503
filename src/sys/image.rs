//! File systems in a file: a loop device for it, and their end without writing what nobody will read.
//!
//! Sources: loop(4), Linux's `uapi/linux/{loop,fs}.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

/// What file systems are made of here, in bytes; also the smallest unit that the device reads and writes.
pub const BLOCK: u32 = 4096;

/// A loop device. It is free again once neither this nor a mount of it is there any more.
#[derive(Debug)]
pub struct Device {
    pub path: PathBuf,
    _open: File,
}

/// Gives the open file a block device of its own. It reads and writes past the page cache where the file's own file
/// system can: what a program writes is then cached once, by the file system in the file.
///
/// # Errors
/// Opening `/dev/loop-control` or the device: ENOENT or ENXIO without them in this kernel or in this `/dev`; `ioctl(2)`.
pub fn attach(file: impl AsFd) -> io::Result<Device> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        // SAFETY: no argument is read or written; the answer is the device's number.
        let number = unsafe { get_free(control.as_raw_fd()) }?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path);
        let device = device.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        // SAFETY: every pattern of bits, all zeroes among them, is a value of this structure of numbers.
        let mut wanted: Configuration = unsafe { mem::zeroed() };
        wanted.file = file.as_fd().as_raw_fd().cast_unsigned();
        wanted.block_size = BLOCK;
        wanted.info.flags = AUTOCLEAR | DIRECT_IO;
        // SAFETY: the structure has the layout that the kernel reads at this number, and lives across the call.
        match unsafe { configure(device.as_raw_fd(), &raw const wanted) } {
            Ok(_) => return Ok(Device { path, _open: device }),
            // Somebody else was faster.
            Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(nix::errno::Errno::EBUSY.into())
}

/// Ends the file system that `directory` is on: nothing that isn't written yet will be, and every access fails from now
/// on. The kernel says so in its log, loudly.
///
/// # Errors
/// `ioctl(2)`: ENOTTY where the file system has no such end.
pub fn shut_down(directory: &OwnedFd) -> io::Result<()> {
    let how = WITHOUT_LOG;
    // SAFETY: the number lives across the call, and is what the kernel reads at this number.
    unsafe { shutdown(directory.as_raw_fd(), &raw const how) }?;
    Ok(())
}

/// As often as others may be faster.
const ATTEMPTS: usize = 1000;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// `struct loop_info64`
#[repr(C)]
struct Info {
    numbers: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u8; 64]; 2],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct Configuration {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Configuration>() == 304);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`
const WITHOUT_LOG: u32 = 2;

nix::ioctl_none_bad!(get_free, 0x4C82);
nix::ioctl_write_ptr_bad!(configure, 0x4C0A, Configuration);
// `EXT4_IOC_SHUTDOWN`, named as if it were read.
nix::ioctl_write_ptr_bad!(shutdown, nix::request_code_read!(b'X', 125, size_of::<u32>()), u32);
