//! What of a source reaches its build: names, modes, links, submodules, `app.json`.

use crate::hokku::{Hokku, Repository, wait_for};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Lists the app as the build sees it, then serves it with the echo server.
const LISTING: &str =
    "#!/bin/bash\ncd \"$1\" && find . -not -path './.git*' -printf '%M %y %p -> %l\\n' | LC_ALL=C sort\n";

fn listing(repository: &Repository) {
    repository.write("bin/compile", LISTING);
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(repository.path().join("bin/compile"), mode).unwrap();
}

#[test]
fn names_modes_and_links_reach_the_build_as_they_are() {
    let hokku = Hokku::start();
    let repository = hokku.app("names", "echo");
    listing(&repository);
    repository.write("with space and \"quotes\".txt", "x").write("Grüße-発句.txt", "x");
    repository.write("run.sh", "#!/bin/sh\n").write("not-exported.txt", "x");
    repository.write(".gitattributes", "not-exported.txt export-ignore\n*.bin filter=lfs\n");
    repository.write("model.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:1a\nsize 5\n");
    fs::set_permissions(repository.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run.sh", repository.path().join("link.sh")).unwrap();
    symlink("gone", repository.path().join("dangling")).unwrap();
    repository.commit("odd");
    let output = hokku.push(&repository).expect_success();
    for line in [
        "-rw-r--r-- f ./with space and \"quotes\".txt -> ",
        "-rw-r--r-- f ./Grüße-発句.txt -> ",
        "-rwxr-xr-x f ./run.sh -> ",
        "lrwxrwxrwx l ./link.sh -> run.sh",
        "lrwxrwxrwx l ./dangling -> gone",
        // It is about archives; a deploy is a checkout.
        "f ./not-exported.txt -> ",
        "only pointers to them were pushed: model.bin.",
    ] {
        assert!(output.contains(line), "{line:?} is missing in\n{output}");
    }
    assert_eq!(hokku.ok(&["run", "cat Grüße-発句.txt; readlink link.sh", "-a", "names"]).trim(), "xrun.sh");
}

/// Serves a directory over https with a certificate of its own.
struct Https {
    process: Child,
    port: u16,
}

impl Https {
    fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(dir)
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let serve = format!(
            "import http.server, ssl
server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()"
        );
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", &serve]).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        let https = Self { process: python.spawn().unwrap(), port };
        wait_for("the https server", || TcpStream::connect(("127.0.0.1", port)).ok());
        https
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn submodules_are_fetched_with_those_within_them() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let https = Https::start(place.path());
    let url = |name: &str| format!("https://localhost:{}/{name}.git", https.port);
    let certificate = place.path().join("cert.pem").display().to_string();
    let publish = |repository: &Repository, name: &str| {
        let bare = place.path().join(format!("{name}.git"));
        repository.run(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        repository.run(&["-C", bare.to_str().unwrap(), "update-server-info"]);
    };
    let submodule = |repository: &Repository, name: &str, path: &str| {
        let added = repository
            .git(&["submodule", "--quiet", "add", &url(name), path])
            .env("GIT_SSL_CAINFO", &certificate)
            .status();
        assert!(added.unwrap().success());
        repository.commit("submodule");
    };
    let inner = Repository::empty();
    inner.write("inner.txt", "from the inner one\n").commit("first");
    publish(&inner, "inner");
    let outer = Repository::empty();
    outer.write("outer.txt", "from the outer one\n").commit("first");
    submodule(&outer, "inner", "deep/inner");
    publish(&outer, "outer");

    // The server's own machine is closed to them as it is to builds.
    let closed = Hokku::with("", &[("GIT_SSL_CAINFO", &certificate)]);
    let repository = closed.app("modules", "echo");
    submodule(&repository, "outer", "lib/outer");
    let output = closed.push(&repository).expect_rejection();
    assert!(output.contains("it leads to this machine"), "{output}");

    let open = format!("[network]\nallow_host = [\"tcp/{}\"]\n", https.port);
    let hokku = Hokku::with(&open, &[("GIT_SSL_CAINFO", &certificate)]);
    let repository = hokku.app("modules", "echo");
    submodule(&repository, "outer", "lib/outer");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Fetching the submodule lib/outer"), "{output}");
    let seen = hokku.ok(&["run", "cat lib/outer/outer.txt lib/outer/deep/inner/inner.txt", "-a", "modules"]);
    assert_eq!(seen, "from the outer one\nfrom the inner one\n");

    fs::remove_dir_all(place.path().join("outer.git")).unwrap();
    repository.commit("again");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("Can't fetch the submodule lib/outer from https://localhost:"), "{output}");
}

/// A file of another language that comes later does not make it another app.
#[test]
fn the_buildpack_that_was_detected_stays_until_it_is_cleared() {
    let hokku = Hokku::start();
    let repository = hokku.app("pinned", "apps/python-bare");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("-----> Python app detected"), "{output}");
    assert!(hokku.ok(&["buildpacks", "-a", "pinned"]).contains("heroku/python"));

    let lock = r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{}}"#;
    repository
        .write("package.json", r#"{"name":"x","version":"1.0.0"}"#)
        .write("package-lock.json", lock)
        .commit("node");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("-----> Python app detected") && !output.contains("Node.js"), "{output}");

    hokku.ok(&["buildpacks:clear", "-a", "pinned"]);
    repository.write("Procfile", "worker: exec sleep 1000\n").commit("no Python");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("-----> Node.js app detected"), "{output}");
}

#[test]
fn app_json_sets_up_an_app_at_its_first_deploy_only() {
    let hokku = Hokku::start();
    let repository = hokku.app("manifest", "echo");
    let manifest = r#"{"env": {"GREETING": "hello", "SECRET": {"generator": "secret"}, "TOKEN": {"required": true}},
        "formation": {"web": {"quantity": 2}}, "buildpacks": [{"url": "inline"}],
        "scripts": {"postdeploy": "echo seeded by $DYNO with $GREETING; exit 3"}, "addons": ["heroku-redis:mini"]}"#;
    repository.write("app.json", manifest).commit("app.json");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("no value yet: TOKEN.") && output.contains("hokku config:set TOKEN="), "{output}");

    hokku.ok(&["config:set", "TOKEN=t", "GREETING=moi", "-a", "manifest"]);
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("seeded by postdeploy.1 with moi"), "{output}");
    assert!(output.contains("The postdeploy script ended with status 3."), "{output}");
    assert!(output.contains("asks for the add-on heroku-redis:mini, which is not made here."), "{output}");
    let secret = hokku.ok(&["config:get", "SECRET", "-a", "manifest"]);
    assert_eq!(secret.trim().len(), 64);
    hokku.wait_until_up("manifest", 2);
    assert!(hokku.ok(&["buildpacks", "-a", "manifest"]).contains("inline"));

    hokku.ok(&["config:unset", "SECRET", "-a", "manifest"]);
    hokku.ok(&["ps:scale", "web=1", "-a", "manifest"]);
    repository.commit("again");
    let output = hokku.push(&repository).expect_success();
    assert!(!output.contains("seeded"), "{output}");
    assert!(!hokku.ok(&["config", "-a", "manifest"]).contains("SECRET"));
    hokku.wait_until_up("manifest", 1);
}

#[test]
fn the_stack_of_app_json_is_for_an_app_without_code_whose_owner_has_chosen_none() {
    let hokku = Hokku::with_config("[stack]\ndefault = \"debian-13\"\n");
    let stack = |app: &str| hokku.json(&["info", "-a", app, "--json"])["app"]["build_stack"]["name"].clone();
    let repository = hokku.app("declared", "echo");
    repository.write("app.json", r#"{"stack": "container"}"#).commit("app.json");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("There is no stack \"container\"; the stacks are host and debian-13"), "{output}");
    assert_eq!(stack("declared"), "debian-13");

    repository.write("app.json", r#"{"stack": "host"}"#).commit("one that there is");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Building on the host-") && output.contains(" stack, as app.json says"), "{output}");
    assert_eq!(stack("declared"), "host");
    let builds = hokku.json(&["builds", "-a", "declared", "--json"]);
    let built = builds.as_array().unwrap().iter().find(|build| build["status"] == "succeeded").unwrap();
    assert_eq!(built["stack"], "host");
    assert_eq!(hokku.get("declared", "/").status, 200);

    repository.write("app.json", r#"{"stack": "heroku-24"}"#).commit("too late");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Building on the host-") && !output.contains("as app.json says"), "{output}");

    let repository = hokku.app("chosen", "echo");
    hokku.ok(&["stack:set", "host", "-a", "chosen"]);
    repository.write("app.json", r#"{"stack": "container"}"#).commit("app.json");
    hokku.push(&repository).expect_success();
    assert_eq!(stack("chosen"), "host");
}

/// What a build makes that nobody may read, that is no file, or that leads out of the app.
const ODDITIES: &str = r#"#!/bin/bash
mkdir -p "$1/locked/deep" && echo x >"$1/locked/deep/file" && chmod 000 "$1/locked/deep/file"
chmod 500 "$1/locked/deep" && chmod 000 "$1/locked"
mkfifo "$1/pipe" && ln -s /etc/passwd "$1/link" && echo z >"$1/setuid" && chmod 4755 "$1/setuid"
[ ! -d "$2/closed" ] || echo "found the closed cache"
mkdir -p "$2/closed" && chmod 700 "$2/closed" && touch "$2/closed/x" && chmod 000 "$2/closed"
"#;

#[test]
fn what_a_compile_leaves_is_packed_whatever_its_modes() {
    let hokku = Hokku::start();
    let repository = hokku.app("odd", "echo");
    repository.write("bin/compile", ODDITIES).commit("odd");
    hokku.push(&repository).expect_success();
    let seen = hokku.ok(&["run", "stat -c '%a %n' locked/deep/file setuid; ls pipe 2>&1; readlink link", "-a", "odd"]);
    assert!(seen.starts_with("644 locked/deep/file\n755 setuid\n"), "{seen}");
    assert!(seen.contains("cannot access 'pipe'") && seen.ends_with("/etc/passwd\n"), "{seen}");
    repository.commit("again");
    assert!(hokku.push(&repository).expect_success().contains("found the closed cache"));
    let stages = || fs::read_dir(hokku.root().join("builds")).map_or(0, Iterator::count);
    wait_for("the builds' directories to go", || (stages() == 0).then_some(()));
}

#[test]
fn a_build_that_runs_out_of_memory_says_so_and_the_old_release_serves() {
    let hokku = Hokku::with_config("[build]\nmemory_mb = 64\n");
    let repository = hokku.serving("hungry");
    repository.write("bin/compile", "#!/bin/bash\nhead -c 400m /dev/zero | tail | wc -c\n").commit("hungry");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("The build ran out of memory: it may use 64 MB."), "{output}");
    assert_eq!(hokku.get("hungry", "/").status, 200);
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_build_that_takes_too_long_is_stopped_and_the_old_release_serves() {
    let hokku = Hokku::with_config("[build]\ntime_limit_minutes = 1\n");
    let repository = hokku.serving("slow");
    repository.write("bin/compile", "#!/bin/bash\nsleep 600\n").commit("slow");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("The build took longer than 1 min and was stopped."), "{output}");
    assert_eq!(hokku.get("slow", "/").status, 200);
    assert_eq!(fs::read_dir(hokku.root().join("builds")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_slug_over_the_limit_is_refused_and_the_old_release_serves() {
    let hokku = Hokku::with_config("[build]\nslug_mb = 5\n");
    let repository = hokku.serving("large");
    repository.write("bin/compile", "#!/bin/bash\nhead -c 9000000 /dev/urandom >\"$1/large\"\n").commit("large");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("more than the 5 MB that are allowed"), "{output}");
    assert_eq!(hokku.get("large", "/").status, 200);
}

#[test]
fn a_cache_over_its_limit_is_not_kept() {
    let hokku = Hokku::with_config("[build]\ncache_mb = 5\n");
    let repository = hokku.app("cached", "echo");
    repository
        .write("bin/compile", "#!/bin/bash\nls \"$2\"; head -c 9000000 /dev/zero >\"$2/large\"\n")
        .commit("large");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("The cache has 8.5M, more than 5 MB: that of the build before stays."), "{output}");
    assert!(!hokku.ok(&["rebuild", "-a", "cached"]).contains("\nlarge\n"));
}
