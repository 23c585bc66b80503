//! `hokku install`: this very binary as a service of systemd, and its upgrade; `hokku uninstall`: no trace of it.
//!
//! Two units, so that an upgrade leaves dynos alone: `hokku-dynos` owns the control group that everything of the apps is
//! in and is never restarted; `hokku` is the server. See docs/decisions/0010.
#![forbid(unsafe_code)]

use crate::doctor::{self, Status};
use crate::sys::tree;
use anyhow::{Context, bail};
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The configuration with every key, its default and what it does.
pub const CONFIG: &str = include_str!("hokku.toml");
const BINARY: &str = "/usr/local/bin/hokku";
const CONFIG_DIR: &str = "/etc/hokku";
const UNIT_DIR: &str = "/etc/systemd/system";
const SERVER: &str = "hokku.service";
const DYNOS: &str = "hokku-dynos.service";
const UNITS: [(&str, &str); 2] =
    [(DYNOS, include_str!("hokku-dynos.service")), (SERVER, include_str!("hokku.service"))];
/// Where apps are served from a box that is there for it.
const ROUTER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
const ROUTER_TLS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);

/// What the configuration is to say when it is made; an existing one is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept that lasts.
    pub root: PathBuf,
    pub api: Option<SocketAddr>,
    /// 0.0.0.0:80 when not set.
    pub router: Option<SocketAddr>,
    /// 0.0.0.0:443 when not set, unless there is a `router`.
    pub router_tls: Option<SocketAddr>,
    pub domain: Option<String>,
}

/// Installs, or upgrades what is installed, and starts it; apps that run go on.
///
/// # Errors
/// Without root or systemd, on a box that lacks what hokku needs, when the router's port is taken, or the server does not
/// come up: then with the end of its log.
pub fn install(options: &Options) -> anyhow::Result<()> {
    require_systemd()?;
    let wanted = &with_ports(options);
    let running = is_active(SERVER);
    if !running {
        examine(&options.root)?;
        for (address, flag) in [(wanted.router, "--router"), (wanted.router_tls, "--router-tls")] {
            address.map_or(Ok(()), |address| must_be_free(address, flag))?;
        }
    }
    place_binary()?;
    place_config(options)?;
    for (name, text) in UNITS {
        let text = text.replace("@BINARY@", BINARY).replace("@ROOT@", &unit_word(&options.root)?);
        put(&Path::new(UNIT_DIR).join(name), &text, 0o644)?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--quiet", SERVER])?;
    say(if running { "Restarting the server; apps go on" } else { "Starting the server" })?;
    if let Err(error) = systemctl(&["restart", SERVER]) {
        let log = Command::new("journalctl").args(["-u", SERVER, "-u", DYNOS, "-n", "10", "-o", "cat"]).output();
        let log = log.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        bail!("{error}\n{}\nMore is in: journalctl -u hokku", log.trim_end());
    }
    greet(&options.root)
}

/// Stops everything and takes it off the box. The apps' data and the configuration stay unless `purge`.
///
/// # Errors
/// Without root or systemd, or when something can't be removed.
pub fn uninstall(root: &Path, purge: bool) -> anyhow::Result<()> {
    require_systemd()?;
    let unit = Path::new(UNIT_DIR).join(SERVER);
    if !unit.exists() && !Path::new(UNIT_DIR).join(DYNOS).exists() {
        bail!("hokku is not installed here: there is no {}", unit.display());
    }
    say("Stopping the apps and the server")?;
    systemctl(&["stop", SERVER, DYNOS])?;
    systemctl(&["disable", "--quiet", SERVER])?;
    for (name, _) in UNITS {
        remove(&Path::new(UNIT_DIR).join(name))?;
    }
    systemctl(&["daemon-reload"])?;
    remove(Path::new(BINARY))?;
    if purge {
        for dir in [Path::new(CONFIG_DIR), root].into_iter().filter(|dir| dir.exists()) {
            tree::remove(dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        return say("Gone: the service, the binary, the configuration and all apps");
    }
    say(&format!(
        "Gone: the service and the binary. The apps' data is still in {}, the configuration in {CONFIG_DIR}",
        root.display()
    ))
}

fn require_systemd() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root; try it with sudo");
    }
    if !sd_notify::booted().unwrap_or(false) {
        bail!("systemd does not run this box: have what starts services here run `hokku server` as root");
    }
    Ok(())
}

fn examine(root: &Path) -> anyhow::Result<()> {
    say("Looking whether this box has what hokku needs")?;
    let checks = doctor::examine(root, Path::new("/proc/self/exe"));
    let missing: Vec<String> = checks
        .iter()
        .filter(|check| check.status == Status::Missing)
        .map(|check| match &check.advice {
            Some(advice) => format!("{}: {}\n  → {advice}", check.name, check.found),
            None => format!("{}: {}", check.name, check.found),
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this box can't run apps yet; `hokku doctor` shows all that was looked at\n{}", missing.join("\n"))
}

fn must_be_free(router: SocketAddr, flag: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(router);
    listener
        .map(drop)
        .with_context(|| format!("apps can't be served at {router}; stop what listens there, or choose with {flag}"))
}

/// A box that is there for apps serves them at the ports that browsers try.
fn with_ports(options: &Options) -> Options {
    let router_tls = options.router_tls.or(options.router.is_none().then_some(ROUTER_TLS));
    Options { router: options.router.or(Some(ROUTER)), router_tls, ..options.clone() }
}

/// Whole or not at all, and never written into while it runs.
fn place_binary() -> anyhow::Result<()> {
    let own = Path::new("/proc/self/exe");
    let same = match (fs::metadata(own), fs::metadata(BINARY)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    };
    if same {
        return Ok(());
    }
    say(&format!("Putting the binary to {BINARY}"))?;
    let new = format!("{BINARY}.new");
    let at = || format!("can't write {BINARY}");
    fs::copy(own, &new).with_context(at)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).with_context(at)?;
    fs::File::open(&new).and_then(|file| file.sync_all()).with_context(at)?;
    fs::rename(&new, BINARY).with_context(at)
}

/// The configuration is in `/etc`, where an operator looks for it; ROOT leads there.
fn place_config(options: &Options) -> anyhow::Result<()> {
    let (path, there) = (Path::new(CONFIG_DIR).join("hokku.toml"), options.root.join("hokku.toml"));
    for dir in [Path::new(CONFIG_DIR), &options.root] {
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    }
    let is_own = fs::symlink_metadata(&there).is_ok_and(|found| found.is_file());
    if path.exists() {
        if is_own {
            bail!("there are two configurations, {} and {}; remove one", path.display(), there.display());
        }
        says_so_already(&path, options)?;
    }
    if is_own {
        // Of a server that was started by hand before.
        let text = fs::read_to_string(&there).with_context(|| format!("can't read {}", there.display()))?;
        put(&path, &text, 0o600)?;
        remove(&there)?;
    } else if !path.exists() {
        say(&format!("Writing {}", path.display()))?;
        put(&path, &config(options), 0o600)?;
    }
    match std::os::unix::fs::symlink(&path, &there) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("can't make {}", there.display()))
        }
        _ => Ok(()),
    }
}

/// An upgrade doesn't change what an operator may have written there.
fn says_so_already(path: &Path, options: &Options) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let there: toml::Table =
        text.parse().with_context(|| format!("{} is not a valid configuration", path.display()))?;
    for (key, asked) in asked(options) {
        let Some(asked) = asked else { continue };
        if there.get("server").and_then(|server| server.get(key)?.as_str()) != Some(&asked) {
            let flag = key.replace('_', "-");
            bail!(
                "{} says something else for --{flag}; change it there, then: systemctl restart hokku",
                path.display()
            );
        }
    }
    Ok(())
}

/// The keys of `[server]` with what they are to be.
fn asked(options: &Options) -> [(&'static str, Option<String>); 4] {
    let text = |address: SocketAddr| address.to_string();
    [
        ("api", options.api.map(text)),
        ("router", options.router.map(text)),
        ("router_tls", options.router_tls.map(text)),
        ("domain", options.domain.clone()),
    ]
}

/// [`CONFIG`] with what was asked for.
fn config(options: &Options) -> String {
    let set = asked(&with_ports(options));
    let mut text = String::new();
    for line in CONFIG.lines() {
        let asked = set.iter().find_map(|(key, value)| {
            let value = value.as_ref().filter(|_| line.starts_with(&format!("#{key} = ")))?;
            Some(format!("{key} = {}", toml::Value::from(value.as_str())))
        });
        text.push_str(&asked.unwrap_or_else(|| line.to_owned()));
        text.push('\n');
    }
    text
}

/// A path as a word of a unit file, see systemd.service(5).
fn unit_word(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().filter(|text| path.is_absolute() && !text.contains(['"', '\\', '\n', '$']));
    let text = text.with_context(|| format!("{} can't be in a unit file; choose another --root", path.display()))?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

fn put(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let write = || {
        let new = path.with_extension("new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn is_active(unit: &str) -> bool {
    Command::new("systemctl").args(["is-active", "--quiet", unit]).status().is_ok_and(|status| status.success())
}

fn systemctl(args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("systemctl").args(args).status().context("can't run systemctl")?;
    if status.success() {
        return Ok(());
    }
    bail!("systemctl {} failed", args.join(" "))
}

fn greet(root: &Path) -> anyhow::Result<()> {
    let record = fs::read(root.join("instance.json")).context("the server is up, but does not say where")?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    let word = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    say(&format!(
        "hokku runs, also after a reboot. API on http://{}, apps on http://<app>.{} at {}\n\n  hokku create shop\n  \
         hokku auth:token         for those who push from elsewhere\n  hokku users:create EMAIL  for each of them, if they are several\n  journalctl -u hokku      what the server says\n  \
         {CONFIG_DIR}/hokku.toml    what it is told",
        word("api"),
        word("domain"),
        word("router"),
    ))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_was_asked_for_and_keeps_the_rest() {
        let domain = Some("apps.example.com".to_owned());
        let options = Options { root: "/r".into(), api: None, router: None, router_tls: None, domain };
        let text = config(&options);
        let wanted: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && line.contains('=')).collect();
        let ports = ["router = \"0.0.0.0:80\"", "router_tls = \"0.0.0.0:443\""];
        assert_eq!(wanted, [ports[0], ports[1], "domain = \"apps.example.com\""]);
        assert_eq!(text.lines().count(), CONFIG.lines().count());

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hokku.toml");
        fs::write(&path, text).unwrap();
        says_so_already(&path, &options).unwrap();
        let other = Options { api: Some(ROUTER), ..options };
        assert!(says_so_already(&path, &other).unwrap_err().to_string().contains("--api"));
    }

    #[test]
    fn a_root_that_systemd_would_read_differently_is_refused() {
        assert_eq!(unit_word(Path::new("/var/lib/ho kku%1")).unwrap(), "\"/var/lib/ho kku%%1\"");
        for path in ["relative", "/a\"b", "/a\\b", "/a\nb", "/$HOME"] {
            assert!(unit_word(Path::new(path)).is_err(), "{path}");
        }
    }
}
