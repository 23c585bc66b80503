//! Slugs on the real file system, with the real unprivileged reader: what is packed comes back, and what should not be
//! in an archive is refused and leaves nothing behind.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hokku::domain::slug::Digest;
use hokku::slug::{Refusal, SlugError, SlugStore, UnpackLimits};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

struct Place {
    dir: tempfile::TempDir,
    store: SlugStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self::open(dir.path());
        Self { dir, store }
    }

    fn open(dir: &Path) -> SlugStore {
        SlugStore::open(&dir.join("root")).unwrap().with_program(env!("CARGO_BIN_EXE_hokku").into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self, archive: &[u8], limits: UnpackLimits) -> Result<BTreeMap<String, String>, SlugError> {
        let file = self.path("source");
        fs::write(&file, archive).unwrap();
        let dest = self.path("dest");
        let result = self.store.unpack_source(&file, &dest, limits).map(|_| contents(&dest));
        fs::remove_file(&file).unwrap();
        if dest.exists() {
            fs::remove_dir_all(&dest).unwrap();
        }
        result
    }

    /// All the paths below ROOT, and what stands beside it.
    fn everything(&self) -> Vec<String> {
        let entries = walkdir::WalkDir::new(self.dir.path()).sort_by_file_name();
        entries.into_iter().map(|entry| entry.unwrap().path().display().to_string()).collect()
    }
}

/// Every path below `dir` with what it is.
fn contents(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.unwrap();
        let kind = entry.file_type();
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", entry.path().read_link().unwrap().display())
        } else if kind.is_file() {
            let meta = entry.metadata().unwrap();
            assert_eq!(meta.mode() & 0o7000, 0, "{}", entry.path().display());
            let text = fs::read(entry.path()).unwrap();
            let text = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
            format!("{:o} {text}", meta.mode() & 0o777)
        } else {
            format!("special: {}", kind.is_socket())
        };
        found.insert(entry.path().strip_prefix(dir).unwrap().display().to_string(), what);
    }
    found
}

/// Makes archives that no honest program would.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: impl AsRef<[u8]>, target: &str, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        let (path, old) = (path.as_ref(), header.as_old_mut());
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.raw(&header, body);
        self
    }

    fn raw(&mut self, header: &Header, body: &[u8]) {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(self, path: impl AsRef<[u8]>, body: &str) -> Self {
        self.entry(EntryType::Regular, path, "", body.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    fn long_name(self, name: &[u8]) -> Self {
        self.entry(EntryType::GNULongName, "././@LongLink", "", name)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A tree with one of everything a build may leave.
fn sample(dir: &Path) {
    let deep = dir.join("lib/a-directory-with-a-long-name").join("x".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::write(deep.join("y".repeat(150)), "deep").unwrap();
    fs::write(dir.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("run"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::write(dir.join("secret"), "s").unwrap();
    fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("big"), vec![b'z'; 3_000_001]).unwrap();
    fs::hard_link(dir.join("run"), dir.join("run-too")).unwrap();
    symlink("/usr/bin/python3", dir.join("python")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    symlink("/etc/anything", dir.join("of-the-build")).unwrap();
    symlink(format!("lib/{}", "z".repeat(140)), dir.join("long-link")).unwrap();
    fs::write(dir.join(std::ffi::OsString::from_vec(b"caf\xe9".to_vec())), "latin").unwrap();
}

#[test]
fn a_tree_comes_back_as_the_dyno_user_s_own() {
    let place = Place::new();
    let tree = place.path("build");
    sample(&tree);
    let packed = place.store.pack(&tree).unwrap();
    assert_eq!(packed.unpacked, 4 + 2 * 10 + 1 + 3_000_001 + 5);
    let unpacked = place.store.tree(&packed.digest).unwrap().join("app");

    for name in ["run", "run-too"] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(contents(&unpacked), contents(&tree));
    assert!(unpacked.join(std::ffi::OsStr::from_bytes(b"caf\xe9")).exists());
    for entry in walkdir::WalkDir::new(&unpacked) {
        let meta = entry.unwrap().path().symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
    }
    assert_eq!(unpacked.parent().unwrap().metadata().unwrap().uid(), 0);
    assert_eq!(place.path("root/trees").metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn the_digest_depends_on_names_contents_and_executability_alone() {
    let place = Place::new();
    let (one, other) = (place.path("one"), place.path("other"));
    sample(&one);
    fs::create_dir_all(&other).unwrap();
    // The same again, made in another order, by another user, at another time.
    symlink("nowhere", other.join("dangling")).unwrap();
    fs::write(other.join("big"), vec![b'z'; 3_000_001]).unwrap();
    fs::remove_file(other.join("big")).unwrap();
    fs::remove_file(other.join("dangling")).unwrap();
    sample(&other);
    for entry in walkdir::WalkDir::new(&other) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(4711), Some(4711)).unwrap();
    }
    fs::set_permissions(other.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    fs::File::open(other.join("big")).unwrap().set_modified(time).unwrap();

    let digest = place.store.pack(&one).unwrap().digest;
    assert_eq!(place.store.pack(&other).unwrap().digest, digest);
    fs::set_permissions(other.join("big"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(place.store.pack(&other).unwrap().digest, digest);
}

#[test]
fn what_an_archive_cannot_hold_is_left_out_and_counted() {
    let place = Place::new();
    let tree = place.path("build");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "a").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    nix::unistd::mkfifo(&tree.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let packed = place.store.pack(&tree).unwrap();
    assert_eq!(packed.skipped, 2);
    let unpacked = place.store.tree(&packed.digest).unwrap().join("app");
    assert_eq!(contents(&unpacked).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn those_who_want_a_tree_at_once_all_get_the_one() {
    let place = Place::new();
    let tree = place.path("build");
    sample(&tree);
    let digest = place.store.pack(&tree).unwrap().digest;
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| place.store.tree(&digest).unwrap().join("app/big").metadata().unwrap().ino()))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
    assert_eq!(fs::read_dir(place.path("root/trees")).unwrap().count(), 1);
}

#[test]
fn a_damaged_slug_is_told_by_its_checksum_and_makes_no_tree() {
    let place = Place::new();
    let tree = place.path("build");
    sample(&tree);
    let digest = place.store.pack(&tree).unwrap().digest;
    let archive = place.path(&format!("root/slugs/{digest}.tar.zst"));
    let good = fs::read(&archive).unwrap();
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&archive, bad).unwrap();
        let error = place.store.tree(&digest).unwrap_err();
        assert!(matches!(&error, SlugError::Checksum { expected, .. } if *expected == digest), "{error}");
        assert_eq!(fs::read_dir(place.path("root/trees")).unwrap().count(), 0);
    }
    fs::write(&archive, &good[..good.len() - 1]).unwrap();
    assert!(matches!(place.store.tree(&digest), Err(SlugError::Checksum { .. })));
    fs::write(&archive, &good).unwrap();
    assert!(place.store.tree(&digest).is_ok());
    place.store.remove(&digest).unwrap();
    assert_eq!(place.store.tree(&digest).unwrap_err().to_string(), format!("there is no slug {digest}"));
    assert_eq!(fs::read_dir(place.path("root/trees")).unwrap().count(), 0);
}

#[test]
fn what_a_stopped_server_left_is_swept_and_the_rest_stays() {
    let place = Place::new();
    let tree = place.path("build");
    sample(&tree);
    let digest = place.store.pack(&tree).unwrap().digest;
    let made = place.store.tree(&digest).unwrap();
    let before = place.everything();
    fs::create_dir_all(place.path(&format!("root/trees/{digest}.tmp-1/app/x"))).unwrap();
    fs::write(place.path("root/slugs/pack.tmp-2"), "half").unwrap();
    let store = Place::open(place.dir.path());
    assert_eq!(place.everything(), before);
    assert_eq!(store.tree(&digest).unwrap(), made);
}

#[test]
fn a_foreign_slug_is_taken_in_by_its_own_checksum_in_either_shape() {
    let place = Place::new();
    let heroku =
        gzip(&Tar::default().dir("./").dir("./app/").file("./app/web.js", "1").link("./app/l", "web.js").end());
    let bare = zstd(&Tar::default().file("web.js", "1").link("l", "web.js").end());
    let checksum = |bytes: &[u8]| {
        use sha2::Digest as _;
        Digest::of(sha2::Sha256::digest(bytes).into())
    };
    let (packed, found) = place.store.import(&*heroku, Some(&checksum(&heroku)), u64::MAX).unwrap();
    assert_eq!(found, checksum(&heroku));
    assert_eq!(place.store.import(&*bare, None, 2).unwrap().0.digest, packed.digest);
    let tree = place.store.tree(&packed.digest).unwrap();
    let expected: BTreeMap<String, String> =
        [("app", "dir"), ("app/web.js", "644 1"), ("app/l", "-> web.js")].map(|(a, b)| (a.into(), b.into())).into();
    assert_eq!(contents(&tree), expected);

    let before = place.everything();
    let error = place.store.import(&*bare, None, 0).unwrap_err();
    assert!(matches!(error, SlugError::Refused(Refusal::TooLarge(0))), "{error}");
    let error = place.store.import(&*bare, Some(&packed.digest), u64::MAX).unwrap_err();
    assert!(matches!(error, SlugError::Checksum { .. }), "{error}");
    let evil = Tar::default().dir("app").link("app/up", "../x").end();
    let error = place.store.import(&*evil, None, u64::MAX).unwrap_err();
    let says = "the archive was refused: the link app/up leads out of the archive's own tree, to ../x";
    assert_eq!(error.to_string(), says);
    assert_eq!(place.everything(), before);
}

#[test]
fn an_ordinary_source_is_unpacked_whatever_it_is_packed_in() {
    let place = Place::new();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("comment", &b"0123abcd"[..])]).unwrap();
    let mut header = Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o104_775);
    let long = format!("app-1234/{}/{}", "d".repeat(150), "f".repeat(200));
    tar.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    header.set_path("short").unwrap();
    header.set_cksum();
    tar.append(&header, &b"hi"[..]).unwrap();
    let plain = Tar(tar.into_inner().unwrap()).0;
    let plain = Tar(plain[..plain.len() - 1024].to_vec());
    let plain = plain.file("app-1234/app-1234/x", "x").hard_link("app-1234/y", "app-1234/app-1234/x").end();

    let path = long.strip_prefix("app-1234/").unwrap().to_owned();
    let dir = path.split('/').next().unwrap().to_owned();
    let expected: BTreeMap<String, String> = [
        (dir, "dir".into()),
        (path, "755 hi".into()),
        ("app-1234".into(), "dir".into()),
        ("app-1234/x".into(), "644 x".into()),
        ("y".into(), "644 x".into()),
    ]
    .into();
    let limits = UnpackLimits { strip_single_root: true, ..UnpackLimits::default() };
    for archive in [plain.clone(), gzip(&plain), zstd(&plain)] {
        assert_eq!(place.source(&archive, limits).unwrap(), expected);
    }
    let whole = place.source(&plain, UnpackLimits::default()).unwrap();
    assert!(whole.contains_key("app-1234/app-1234/x"), "{whole:?}");
}

#[test]
fn slugignore_and_git_are_taken_out_of_a_source() {
    let place = Place::new();
    let ignore = "# what the build does not need\n*.psd\n/docs\ntest/\n!keep.psd\n[\n";
    let archive = Tar::default()
        .file(".slugignore", ignore)
        .file("keep.psd", "1")
        .file("a/b.psd", "2")
        .file("docs/index", "3")
        .file("sub/docs/index", "4")
        .file("test/one", "5")
        .file("sub/test/one", "6")
        .file("tests", "7")
        .file(".git/config", "8")
        .file("module/.git", "gitdir: x")
        .file(".gitignore", "9")
        .end();
    let left: Vec<String> = place.source(&archive, UnpackLimits::default()).unwrap().into_keys().collect();
    let expected =
        [".gitignore", ".slugignore", "a", "module", "sub", "sub/docs", "sub/docs/index", "tests"].map(str::to_owned);
    assert_eq!(left, expected);
}

/// What is refused, and in which words.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let tar = Tar::default;
    let bytes = |n: usize| vec![b'n'; n];
    vec![
        ("absolute", tar().file("/etc/x", "").end(), "/etc/x is an absolute path"),
        ("up", tar().file("../x", "").end(), "../x leads out of the archive's own tree"),
        ("up inside", tar().file("a/../../x", "").end(), "a/../../x leads out of the archive's own tree"),
        ("link up", tar().link("a", "../x").end(), "the link a leads out of the archive's own tree, to ../x"),
        ("link out", tar().link("a", "/etc").end(), "the link a leads out of the archive's own tree, to /etc"),
        ("through a link", tar().link("a", "/usr").file("a/x", "").end(), "a/x lies in a, which is not a directory"),
        ("over a link", tar().link("a", "b").file("a", "").end(), "a is in it twice"),
        ("through a file", tar().file("a", "").file("a/x", "").end(), "a/x lies in a, which is not a directory"),
        (
            "hard link out",
            tar().hard_link("a", "/etc/passwd").end(),
            "the hard link a is to /etc/passwd, which is no file before it in the archive",
        ),
        (
            "hard link up",
            tar().hard_link("a", "../x").end(),
            "the hard link a is to ../x, which is no file before it in the archive",
        ),
        (
            "hard link to a link",
            tar().link("b", "/usr/bin").hard_link("a", "b").end(),
            "the hard link a is to b, which is no file before it in the archive",
        ),
        (
            "character device",
            tar().entry(EntryType::Char, "null", "", b"").end(),
            "null is a device; only files, directories and links are taken",
        ),
        (
            "block device",
            tar().entry(EntryType::Block, "sda", "", b"").end(),
            "sda is a device; only files, directories and links are taken",
        ),
        (
            "pipe",
            tar().entry(EntryType::Fifo, "p", "", b"").end(),
            "p is a named pipe; only files, directories and links are taken",
        ),
        (
            "unknown type",
            tar().entry(EntryType::new(b'Z'), "z", "", b"").end(),
            "z is a thing of an unknown kind; only files, directories and links are taken",
        ),
        ("twice", tar().file("a", "1").file("a", "2").end(), "a is in it twice"),
        (
            "endless name",
            tar().long_name(&bytes(100_000)).file("x", "").end(),
            "it is damaged: a name or record of 100000 bytes",
        ),
        (
            "long name",
            tar().long_name(&bytes(300)).file("x", "").end(),
            "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
             nnnnnnnnnnnnnnnn… is too long a name",
        ),
        ("no name", tar().file("", "").end(), "`` is no file name"),
        ("root as a link", tar().link(".", "x").end(), "`.` is no file name"),
        ("cut off", tar().file("a", "1").0, "it is cut off"),
        (
            "cut off in gzip",
            {
                let z = gzip(&tar().file("a", "1").end());
                z[..z.len() - 5].to_vec()
            },
            "it is cut off",
        ),
        (
            "cut off in a file",
            {
                let plain = tar().file("a", &"x".repeat(5000)).0;
                plain[..2000].to_vec()
            },
            "it is cut off",
        ),
        ("text", b"#!/bin/sh\necho no archive\n".repeat(40), NOT_AN_ARCHIVE),
        ("short text", b"hello".to_vec(), NOT_AN_ARCHIVE),
        ("zip", b"PK\x03\x04".iter().copied().chain([7; 600]).collect(), NOT_AN_ARCHIVE),
    ]
}

const NOT_AN_ARCHIVE: &str = "it is not a tar archive, plain or compressed by gzip or zstd";

#[test]
fn hostile_archives_are_refused_in_clear_words_and_leave_nothing_behind() {
    let place = Place::new();
    let before = place.everything();
    for (name, archive, says) in hostile() {
        // Whatever came first must not stay either.
        let result = place.source(&archive, UnpackLimits::default());
        let error = result.err().unwrap_or_else(|| panic!("{name} was taken"));
        assert_eq!(error.to_string(), format!("the archive was refused: {says}"), "{name}");
        assert_eq!(place.everything(), before, "{name}");
        assert!(place.store.import(&*archive, None, u64::MAX).is_err(), "{name}");
        assert_eq!(place.everything(), before, "{name}");
    }
}

#[test]
fn limits_on_bytes_files_and_ratio_hold() {
    let place = Place::new();
    let before = place.everything();
    let refusal = |archive: &[u8], limits| match place.source(archive, limits) {
        Err(SlugError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let limits = UnpackLimits { bytes: 1_000_000, files: 10, strip_single_root: false };

    let large = Tar::default().file("a", &"x".repeat(600_000)).file("b", &"x".repeat(600_000)).end();
    assert_eq!(refusal(&large, limits), Refusal::TooLarge(1));
    let many = (0..11).fold(Tar::default(), |tar, n| tar.file(n.to_string(), "")).end();
    assert_eq!(refusal(&many, limits), Refusal::TooManyFiles(10));
    assert!(place.source(&many, UnpackLimits { files: 11, ..limits }).is_ok());
    // Bytes after the end are never made a file, and yet have to be decompressed.
    let mut behind = Tar::default().file("a", "").end();
    behind.resize(4_000_000, 0);
    assert_eq!(refusal(&zstd(&behind), limits), Refusal::TooLarge(2));

    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = Header::new_gnu();
    header.set_size(300 << 20);
    header.set_mode(0o644);
    header.set_path("zeros").unwrap();
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    for _ in 0..300 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    bomb.write_all(&[0; 1024]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert_eq!(refusal(&bomb, UnpackLimits::default()), Refusal::Bomb(200));
    assert_eq!(place.everything(), before);
}

#[test]
fn the_reader_of_archives_has_no_rights() {
    let place = Place::new();
    let report = place.path("report");
    // The role as the store starts it, held up by an archive that does not come, so that the kernel can be asked about it.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hokku"))
        .arg("unpack")
        .arg(ORDER)
        .current_dir(place.dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(fs::File::create(&report).unwrap())
        .spawn()
        .unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let confined = || fs::read_to_string(proc.join("status")).unwrap().contains("CapPrm:\t0000000000000000");
    while !confined() {
        assert!(std::time::Instant::now() < deadline, "it never gave up its rights");
        std::thread::yield_now();
    }
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!(line("Uid:"), "1000\t1000\t1000\t1000");
    assert_eq!(line("Gid:"), "1000\t1000\t1000\t1000");
    assert_eq!(line("Groups:"), "");
    assert_eq!(line("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(proc.join("root").read_link().unwrap(), place.dir.path().canonicalize().unwrap());
    let net = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net(&child.id().to_string()), net("self"));

    // And therefore it cannot write into a place that is root's, even where it was told to.
    child.stdin.take().unwrap().write_all(&Tar::default().file("x", "1").end()).unwrap();
    child.wait().unwrap();
    let said = fs::read_to_string(&report).unwrap();
    assert!(said.contains("could not make the file x: Permission denied"), "{said}");
    assert!(!place.path("x").exists());
}

const ORDER: &str = r#"{"id":1000,"bytes":1000,"files":10,"ratio":10,"strip":"No","links":"Inside","prune":false}"#;
