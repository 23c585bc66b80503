//! A dyno's `/etc`: a copy of what programs need to find their parts, and made-up accounts.
#![forbid(unsafe_code)]

use super::keystore;
use super::skeleton::Skeleton;
use super::{StackError, io_error};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is copied. A `*` at the end stands for any further letters.
const ALLOWED: [&str; 44] = [
    "ImageMagick*",
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "dotnet",
    "emacs",
    "ethertypes",
    "fonts",
    "gai.conf",
    "ghc",
    "groff",
    "host.conf",
    "inputrc",
    "java",
    "java-*",
    "java.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libnl-3",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "magic.mime",
    "mailcap",
    "maven",
    "mime.types",
    "networks",
    "nodejs",
    "os-release",
    "perl",
    "php",
    "protocols",
    "python*",
    "rpc",
    "ruby*",
    "services",
    "ssl",
    "terminfo",
    "timezone",
    "vim",
];

/// Never copied, wherever it is below what is allowed.
const NEVER: [&str; 3] = ["private", "ssh", "shadow"];

/// A configuration file is small; what is larger is something else and would only fill memory.
const LARGEST_FILE: u64 = 8 << 20;

/// Copies the allowed part of `from` to `etc/`.
pub(super) fn copy(from: &Path, skeleton: &mut Skeleton) -> Result<(), StackError> {
    let entries = fs::read_dir(from).map_err(io_error("list", from))?;
    for entry in entries {
        let entry = entry.map_err(io_error("list", from))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(allowed) {
            copy_entry(&entry.path(), &Path::new("etc").join(&name), skeleton)?;
        }
    }
    Ok(())
}

fn allowed(name: &str) -> bool {
    ALLOWED.iter().any(|rule| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *rule,
    })
}

fn copy_entry(from: &Path, to: &Path, skeleton: &mut Skeleton) -> Result<(), StackError> {
    let Ok(meta) = from.symlink_metadata() else { return Ok(()) };
    if from.file_name().and_then(|name| name.to_str()).is_some_and(|name| NEVER.contains(&name)) {
        return Ok(());
    }
    if meta.is_symlink() {
        let target = from.read_link().map_err(io_error("read the link", from))?;
        skeleton.link(to, target);
    } else if meta.is_dir() && readable_by_all(&meta, 0o005) {
        skeleton.dir(to);
        for entry in fs::read_dir(from).map_err(io_error("list", from))? {
            let entry = entry.map_err(io_error("list", from))?;
            copy_entry(&entry.path(), &to.join(entry.file_name()), skeleton)?;
        }
    } else if meta.is_file() && readable_by_all(&meta, 0o004) && meta.len() <= LARGEST_FILE {
        let contents = fs::read(from).map_err(io_error("read", from))?;
        if meta.mode() & 0o100 == 0 {
            skeleton.file(to, contents);
        } else {
            skeleton.executable(to, contents);
        }
    }
    Ok(())
}

fn readable_by_all(meta: &Metadata, bits: u32) -> bool {
    meta.mode() & bits == bits
}

/// What a dyno on a stack of its own takes from the host: whom to trust, and what time it is.
pub(super) fn site(from: &Path, skeleton: &mut Skeleton) -> Result<(), StackError> {
    invent(skeleton);
    let time = from.join("localtime");
    if let Some(zone) = time.read_link().ok().filter(|zone| zone.to_string_lossy().contains("/usr/share/zoneinfo/")) {
        skeleton.link("etc/localtime", zone);
        copy_entry(&from.join("timezone"), Path::new("etc/timezone"), skeleton)?;
    }
    certificates(&from.join("ssl/certs"), skeleton)?;
    let bundle = fs::read_to_string(from.join("ssl/certs/ca-certificates.crt")).unwrap_or_default();
    if let Some(store) = keystore::of_bundle(&bundle) {
        skeleton.file("etc/ssl/certs/java/cacerts", store);
    }
    Ok(())
}

/// The certificates themselves in place of links to where the host has them; their short names go on being links.
fn certificates(from: &Path, skeleton: &mut Skeleton) -> Result<(), StackError> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(io_error("list", from))?.path();
        let to = Path::new("etc/ssl/certs").join(path.file_name().unwrap_or_default());
        match path.read_link() {
            Ok(target) if target.components().count() == 1 => skeleton.link(to, target),
            // One that leads nowhere is of no use in a dyno either.
            _ => match path.metadata() {
                Ok(meta) if meta.is_file() && readable_by_all(&meta, 0o004) && meta.len() <= LARGEST_FILE => {
                    skeleton.file(to, fs::read(&path).map_err(io_error("read", &path))?);
                }
                _ => {}
            },
        }
    }
    Ok(())
}

/// What a dyno must not take from the host: accounts, how names are looked up, the host's own name, package sources.
/// `hosts`, `hostname` and `resolv.conf` depend on the dyno's network; here they are only the places for them.
pub(super) fn invent(skeleton: &mut Skeleton) {
    let account = |name: &str, id: u32, home: &str, shell: &str| format!("{name}:x:{id}:{id}::{home}:{shell}\n");
    let passwd = account("root", 0, "/root", "/usr/sbin/nologin")
        + &account("dyno", 1000, "/app", "/bin/bash")
        + &account("nobody", 65534, "/nonexistent", "/usr/sbin/nologin");
    skeleton.file("etc/passwd", passwd);
    skeleton.file("etc/group", "root:x:0:\ntty:x:5:\ndyno:x:1000:\nnogroup:x:65534:\n");
    skeleton.file("etc/nsswitch.conf", NSSWITCH);
    skeleton.file("etc/shells", "/bin/sh\n/bin/bash\n");
    skeleton.file("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
    skeleton.file("etc/hostname", "dyno\n");
    skeleton.file("etc/resolv.conf", "");
    skeleton.file("etc/apt/sources.list", "");
    skeleton.file("etc/profile", PROFILE);
    skeleton.link("etc/mtab", "/proc/self/mounts");
}

/// Without the modules that ask daemons of the host, which a dyno cannot reach.
const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

/// A login shell keeps the path that buildpacks have set.
const PROFILE: &str = "\
: \"${PATH:=/usr/local/bin:/usr/bin:/bin}\"
export PATH
";

/// `host-debian-12`, from the host's os-release(5).
pub(super) fn stack_id(os_release: &Path) -> String {
    let text = fs::read_to_string(os_release).unwrap_or_default();
    id_of(&text)
}

fn id_of(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        let word: String = line.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).collect();
        Some(word).filter(|word| !word.is_empty())
    };
    let system = value("ID").unwrap_or_else(|| "linux".into());
    // Rolling distributions and Debian's unstable have no number; a code name still tells one from the next.
    match value("VERSION_ID").or_else(|| value("VERSION_CODENAME")) {
        Some(version) => format!("host-{system}-{version}"),
        None => format!("host-{system}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_stack_is_named_after_the_hosts_system() {
        assert_eq!(id_of("PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"12\"\n"), "host-debian-12");
        assert_eq!(id_of("ID=debian\nVERSION_CODENAME=forky\n"), "host-debian-forky");
        assert_eq!(id_of("ID=arch\n"), "host-arch");
        assert_eq!(id_of("ID=../../x\n"), "host-....x");
        assert_eq!(id_of(""), "host-linux");
    }

    #[test]
    fn certificates_are_brought_along_wherever_the_host_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("ssl/certs");
        fs::create_dir_all(&certs).unwrap();
        fs::write(dir.path().join("local.crt"), "ours").unwrap();
        std::os::unix::fs::symlink(dir.path().join("local.crt"), certs.join("local.pem")).unwrap();
        std::os::unix::fs::symlink("local.pem", certs.join("1234abcd.0")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", certs.join("gone.pem")).unwrap();
        let mut skeleton = Skeleton::default();
        site(dir.path(), &mut skeleton).unwrap();
        let root = tempfile::tempdir().unwrap();
        let certs = skeleton.write(root.path()).unwrap().join("etc/ssl/certs");
        assert_eq!(fs::read_to_string(certs.join("local.pem")).unwrap(), "ours");
        assert_eq!(certs.join("1234abcd.0").read_link().unwrap(), Path::new("local.pem"));
        assert!(certs.join("gone.pem").symlink_metadata().is_err());
    }

    #[test]
    fn only_what_is_allowed_and_readable_by_all_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, mode: u32| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("ssl/certs/a.pem", 0o644);
        write("ssl/certs/key.pem", 0o600);
        write("ssl/private/b.key", 0o644);
        write("java-21-openjdk/run.sh", 0o755);
        write("shadow", 0o644);
        write("unknown.conf", 0o644);
        std::os::unix::fs::symlink("/usr/share/zoneinfo/UTC", dir.path().join("localtime")).unwrap();

        let mut skeleton = Skeleton::default();
        copy(dir.path(), &mut skeleton).unwrap();
        let root = tempfile::tempdir().unwrap();
        let base = skeleton.write(root.path()).unwrap();
        let mut files: Vec<String> = walkdir::WalkDir::new(&base)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(&base).unwrap().display().to_string())
            .collect();
        files.sort();
        assert_eq!(files, ["etc/java-21-openjdk/run.sh", "etc/localtime", "etc/ssl/certs/a.pem"]);
        assert_eq!(base.join("etc/java-21-openjdk/run.sh").metadata().unwrap().mode() & 0o777, 0o755);
    }
}
