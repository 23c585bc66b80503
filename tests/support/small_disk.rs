//! A disk of a few megabytes for an instance, and ways to fill it.

use crate::hokku::{Hokku, with_mounts_of_its_own};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// Runs `test` with a server whose ROOT is a file system of its own, of so many bytes, that only this thread and what it
/// starts see.
pub(crate) fn on_a_disk_of(bytes: u64, test: impl FnOnce(&Hokku) + Send + 'static) {
    with_mounts_of_its_own(move || {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("disk");
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let disk = place.path().join("mounted");
        fs::create_dir(&disk).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk));
        let hokku = Hokku::on(tempfile::tempdir_in(&disk).unwrap(), "", &[]);
        assert_ne!(fs::metadata(hokku.root()).unwrap().dev(), fs::metadata(place.path()).unwrap().dev());
        test(&hokku);
        drop(hokku);
        umount2(&disk, MntFlags::MNT_DETACH).unwrap();
    });
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn free_mb(place: &Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(place).unwrap();
    (stat.blocks_available() * stat.fragment_size()) >> 20
}

/// Leaves so many megabytes free.
pub(crate) fn fill(hokku: &Hokku, leave: u64) {
    let filler = hokku.root().join("filler");
    run(Command::new("fallocate").arg("-l").arg(format!("{}M", free_mb(hokku.root()) - leave)).arg(filler));
}

pub(crate) fn make_room(hokku: &Hokku) {
    fs::remove_file(hokku.root().join("filler")).unwrap();
}

/// Leaves not one block.
pub(crate) fn fill_up(hokku: &Hokku) {
    let out = format!("of={}", hokku.root().join("filler").display());
    let blocks = Command::new("dd").args(["if=/dev/zero", "bs=4k", "status=none"]).arg(out).output().unwrap();
    assert!(!blocks.status.success(), "the disk is full");
}
