//! `debian-13` for real. Making its layers takes minutes, so they are kept as an exported file between runs, outside the
//! checkout, for as long as the lists that they are made from are the same.

use crate::hokku::{Hokku, Repository, text, wait_for, with_mounts_of_its_own};
use crate::languages::{Expected, add_gems, rails_with_sqlite, unpack, works};
use hokku::slug::{bundle, digest_of_tree};
use nix::mount::{MsFlags, mount};
use serde_json::json;
use std::path::{Path, PathBuf};

const LANGUAGES: &str = "nodejs,python";

/// Where a run finds what an earlier one has made.
fn kept(prefix: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let dir = cache.unwrap_or_else(std::env::temp_dir).join("hokku-tests");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{prefix}-{}.tar.zst", &hokku::stack::digest_of_all()[..16]))
}

/// Has the layers made and keeps them, in place of those that were made from older lists.
fn make(hokku: &Hokku, kept: &Path) {
    let said = hokku.ok(&["stack:build", "debian-13", "--languages", LANGUAGES]);
    for layer in ["base", "compilers", "nodejs", "python"] {
        assert!(said.contains(&format!("-----> Making the {layer} layer of debian-13")), "{said}");
    }
    keep(hokku, kept, LANGUAGES);
}

fn keep(hokku: &Hokku, kept: &Path, languages: &str) {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let prefix = name(kept).rsplit_once('-').unwrap().0.to_owned() + "-";
    for entry in std::fs::read_dir(kept.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if name(&path).starts_with(&prefix) {
            std::fs::remove_file(path).unwrap();
        }
    }
    hokku.ok(&["stack:export", kept.to_str().unwrap(), "--languages", languages]);
}

/// What a shell command prints in a one-off dyno.
fn inside(hokku: &Hokku, app: &str, command: &str) -> String {
    hokku.ok(&["run", "-a", app, "--no-tty", "--", command])
}

fn layers(hokku: &Hokku) -> Vec<serde_json::Value> {
    let stacks = hokku.json(&["stack", "--json"]);
    let debian = stacks.as_array().unwrap().iter().find(|row| row["name"] == "debian-13").unwrap().clone();
    debian["layers"].as_array().unwrap().clone()
}

fn digest(hokku: &Hokku, name: &str) -> String {
    let layers = layers(hokku);
    layers.iter().find(|layer| layer["name"] == name).unwrap()["digest"].as_str().unwrap().to_owned()
}

#[test]
fn apps_are_built_and_run_on_layers_that_come_from_a_file_and_are_renewed_under_them() {
    let mut hokku = Hokku::start();
    let kept = kept("debian-13");
    if kept.is_file() {
        let wrong = hokku.fails(&["stack:import", kept.to_str().unwrap(), "--sha256", &"0".repeat(64)]);
        assert!(wrong.contains("The checksum of the source is"), "{wrong}");
    }
    if kept.is_file() {
        let said = text(&hokku.cli(&["stack:import", kept.to_str().unwrap()]).stderr);
        assert!(said.contains("done: base, compilers, nodejs, python"), "{said}");
    } else {
        make(&hokku, &kept);
    }
    let everything_is_there = hokku.ok(&["stack:build", "--languages", LANGUAGES]);
    assert!(everything_is_there.contains("Everything is there already"), "{everything_is_there}");

    node_runs_without_the_compilers_it_was_built_with(&hokku);
    python_runs_and_a_dyno_is_debian_inside(&hokku);
    an_app_changes_its_stack_with_its_next_build(&hokku);
    an_export_has_only_what_was_asked_for(&hokku);
    newer_packages_are_new_layers_and_old_ones_go_when_nothing_runs_on_them(&mut hokku, &kept);
}

fn node_runs_without_the_compilers_it_was_built_with(hokku: &Hokku) {
    let repository = hokku.app("node-app", "node-hello");
    hokku.ok(&["stack:set", "heroku-24", "-a", "node-app"]);
    let package = std::fs::read_to_string(repository.path().join("package.json")).unwrap();
    let with_build = r#""scripts": { "build": "cc --version > compiler && id -u >> compiler","#;
    repository.write("package.json", &package.replace(r#""scripts": {"#, with_build)).commit("compile");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Building on the debian-13 stack"), "{output}");
    assert!(hokku.get("node-app", "/").body.starts_with("hello from node"));
    let compiler = inside(hokku, "node-app", "cat compiler");
    assert!(compiler.starts_with("cc (Debian 14"), "{compiler}");
    let without = inside(hokku, "node-app", "command -v cc gcc make python3 || echo none; node --version");
    assert_eq!(without.lines().next(), Some("none"), "only the layers of its language: {without}");
    assert!(without.contains("\nv20."), "{without}");
}

fn python_runs_and_a_dyno_is_debian_inside(hokku: &Hokku) {
    let repository = hokku.app("python-app", "python-hello");
    repository.write("app.json", r#"{"stack": "heroku-22"}"#).commit("app.json");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Building on the debian-13 stack, as app.json says"), "{output}");
    assert_eq!(hokku.get("python-app", "/").body, "hello from python, six 1.17.0\n");
    let ask = |command: &str| inside(hokku, "python-app", command).trim().to_owned();
    assert_eq!(ask(". /etc/os-release; echo $ID $VERSION_ID"), "debian 13");
    assert!(ask("/usr/bin/python3 --version").starts_with("Python 3.13"));
    assert_eq!(ask("touch /usr/bin/x 2>/dev/null || echo refused"), "refused");
    assert_eq!(ask("id -un; echo ~dyno"), "dyno\n/app");
    assert_eq!(ask("wc -c < /etc/apt/sources.list; ls /etc/apt/sources.list.d"), "0");
    assert_eq!(ask("ls /etc/shadow /etc/gshadow 2>/dev/null || echo none"), "none");
    assert_eq!(ask("locale charmap; TZ=Europe/Berlin date -d @0 +%H"), "UTF-8\n01");
    assert_eq!(ask("date -d @0 +%H"), text(&date_of_the_host()).trim(), "the box's time zone");
    assert_eq!(ask("cat /etc/ssl/certs/ca-certificates.crt | sha256sum | cut -c1-64"), host_bundle());
    assert_eq!(ask("head -c4 /etc/ssl/certs/java/cacerts | od -An -tx1"), "fe ed fe ed", "a JVM's own form");
    let memory = ask("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null");
    assert_eq!(memory, "1073741824", "twice the size's 512 MB");
    // Bytecode that was made ahead is valid whatever the files' times are: checked by contents.
    let flags = "import json, struct; print(struct.unpack('<I', open(json.__cached__, 'rb').read(8)[4:])[0])";
    assert_eq!(ask(&format!("/usr/bin/python3 -c \"{flags}\"")), "3");
}

fn date_of_the_host() -> Vec<u8> {
    std::process::Command::new("date").args(["-d", "@0", "+%H"]).env_remove("TZ").output().unwrap().stdout
}

fn host_bundle() -> String {
    let output = std::process::Command::new("sha256sum").arg("/etc/ssl/certs/ca-certificates.crt").output().unwrap();
    text(&output.stdout).split(' ').next().unwrap().to_owned()
}

fn an_app_changes_its_stack_with_its_next_build(hokku: &Hokku) {
    let app = || hokku.json(&["info", "-a", "python-app", "--json"])["app"].clone();
    let said = text(&hokku.cli(&["stack:set", "host", "-a", "python-app"]).stderr);
    assert!(said.contains("Build python-app again for this to take effect"), "{said}");
    assert_eq!((&app()["stack"]["name"], &app()["build_stack"]["name"]), (&"debian-13".into(), &"host".into()));
    assert!(inside(hokku, "python-app", "cat /etc/debian_version").starts_with("13"), "it runs as it is");
    assert!(hokku.ok(&["rebuild", "-a", "python-app"]).contains("Building on the host-"));
    assert_eq!(app()["stack"]["name"], "host");
    hokku.ok(&["stack:set", "debian-13", "-a", "python-app"]);
    hokku.ok(&["rebuild", "-a", "python-app"]);
    let error = hokku.fails(&["stack:set", "cedar-14", "-a", "python-app"]);
    assert!(error.contains("There is no stack \"cedar-14\"; the stacks are host and debian-13"), "{error}");
    let list = hokku.ok(&["stack", "-a", "python-app"]);
    assert!(list.contains("* debian-13  base "), "{list}");
}

fn an_export_has_only_what_was_asked_for(hokku: &Hokku) {
    let file = hokku.root().join("python.tar.zst");
    let line = hokku.ok(&["stack:export", file.to_str().unwrap(), "--languages", "python"]);
    let checksum = std::fs::read_to_string(hokku.root().join("python.tar.zst.sha256")).unwrap();
    assert_eq!((line.as_str(), line.len()), (checksum.as_str(), 64 + 2 + "python.tar.zst\n".len()));
    let error = hokku.fails(&["stack:export", "/tmp/never", "--languages", "scala"]);
    assert!(error.contains("debian-13 has no scala layer on this box"), "{error}");
    assert!(!Path::new("/tmp/never").exists());
    assert!(hokku.fails(&["stack:build", "--languages", "cobol"]).contains("There is no language \"cobol\""));
}

fn newer_packages_are_new_layers_and_old_ones_go_when_nothing_runs_on_them(hokku: &mut Hokku, kept: &Path) {
    // As if a package of the python layer had become newer since.
    let current = hokku.root().join("stacks/debian-13/current.json");
    let old = "0".repeat(64);
    let mut generation: serde_json::Value = serde_json::from_slice(&std::fs::read(&current).unwrap()).unwrap();
    let place = |digest: &str| current.with_file_name(digest);
    std::fs::rename(place(generation["python"]["digest"].as_str().unwrap()), place(&old)).unwrap();
    generation["python"]["digest"] = old.clone().into();
    generation["python"]["packages"]["python3"] = "0".into();
    let base = generation["base"]["digest"].clone();
    hokku.kill_server();
    std::fs::write(&current, generation.to_string()).unwrap();
    hokku.start_server();
    hokku.ok(&["ps:restart", "-a", "python-app"]);
    wait_for("python-app to run on the old layer", || {
        inside(hokku, "python-app", "cat /usr/bin/python3 | wc -c").trim().parse::<u64>().ok().filter(|size| *size > 0)
    });
    hokku.wait_until_up("python-app", 1);

    let said = hokku.ok(&["stack:update"]);
    assert!(said.contains("-----> Making the python layer of debian-13"), "{said}");
    assert!(said.contains("python-app"), "it runs on the old layer: {said}");
    assert_ne!(digest(hokku, "python"), old);
    assert!(place(&old).is_dir(), "a dyno runs on it");
    assert_eq!(hokku.get("python-app", "/").status, 200);
    let stacks = hokku.cli(&["stack"]);
    assert!(text(&stacks.stderr).contains("python-app"), "{}", text(&stacks.stderr));
    if layers(hokku).iter().any(|layer| layer["name"] == "base" && layer["digest"] != base) {
        // What was kept has become old by itself.
        keep(hokku, kept, LANGUAGES);
    }

    hokku.ok(&["ps:restart", "-a", "python-app"]);
    wait_for("the old layer to be collected", || (!place(&old).exists()).then_some(()));
    assert_eq!(hokku.get("python-app", "/").status, 200);
    assert!(!text(&hokku.cli(&["stack"]).stderr).contains("python-app"));
    let again = hokku.ok(&["stack:update"]);
    assert!(again.contains("debian-13 is up to date"), "{again}");
}

/// The packages that the gems of Sinatra and Puma are made of.
const GEMS: &str = "puma rake ruby-mustermann ruby-nio4r ruby-rack ruby-rack-protection ruby-rack-session ruby-ruby2-keywords ruby-sinatra ruby-tilt";

/// The same apps as on `host`, as they are but for Ruby's gems: the compiled ones belong to one version of Ruby.
#[test]
#[ignore = "takes minutes, and more than a gigabyte; scripts/test --all runs it"]
fn an_app_of_each_language_is_built_and_run_on_layers_that_are_made_at_first_need() {
    let hokku = Hokku::with_config("[stack]\ndefault = \"debian-13\"\n");
    let kept = kept("all-of-debian-13");
    if kept.is_file() {
        hokku.ok(&["stack:import", kept.to_str().unwrap()]);
    }
    let java = ("java -version 2>&1", "openjdk");
    for (language, fixture, answer, (run, says)) in [
        ("go", "go-chi", "hello from web.1, chi", ("ls bin", "worker")),
        ("java", "java-bare", "hello from web.1, Java 21.", java),
        ("scala", "scala-bare", "hello from web.1, Scala 2.13.16", java),
        ("clojure", "clojure-lein", "hello from web.1, Clojure 1.", java),
        ("nodejs", "nodejs-pnpm", "hello, a day has 86400000 ms", ("node --version", "v20.")),
        ("python", "python-django", "hello from web.1, Django 4.2", ("python --version", "Python 3.13")),
        ("php", "php-apache", "hello from web.1 at / by Apache and PHP 8.4", ("php-fpm8.4 --version", "PHP 8.4")),
        ("ruby", "ruby-sinatra", "hello from web.1, Sinatra 4.", ("ruby --version", "ruby 3.3")),
    ] {
        let repository = hokku.app(fixture, &format!("apps/{fixture}"));
        let packages = tempfile::tempdir().unwrap();
        if language == "ruby" {
            unpack(packages.path(), "trixie", GEMS);
            add_gems(&repository, Some(packages.path()));
        }
        let output = works(&hokku, fixture, &repository, &Expected { answer, run, says });
        assert!(output.contains("Building on the debian-13 stack"), "{output}");
        let made = output.contains(&format!("-----> Making the {language} layer of debian-13"));
        assert_ne!(made, kept.is_file(), "{output}");
        hokku.ok(&["ps:scale", "web=0", "-a", fixture]);
    }
    if !kept.is_file() {
        keep(&hokku, &kept, "clojure,go,java,nodejs,php,python,ruby,scala");
    }
}

/// What Rails 7.2 is made of there. Ruby itself brings some of its gems; sprockets-rails is in Debian 12 only, and is
/// nothing but Ruby.
const RAILS: &str = "libruby3.3 puma racc rake ruby-actioncable ruby-actionmailbox ruby-actionmailer ruby-actionpack \
    ruby-actiontext ruby-actionview ruby-activejob ruby-activemodel ruby-activerecord ruby-activestorage \
    ruby-activesupport ruby-builder ruby-concurrent ruby-connection-pool ruby-crass ruby-erubi ruby-globalid ruby-i18n \
    ruby-loofah ruby-mail ruby-marcel ruby-mini-mime ruby-mini-portile2 ruby-minitest ruby-nio4r ruby-nokogiri ruby-rack \
    ruby-rack-session ruby-rack-test ruby-rackup ruby-rails ruby-rails-dom-testing ruby-rails-html-sanitizer \
    ruby-railties ruby-sprockets ruby-sqlite3 ruby-thor ruby-tzinfo ruby-useragent ruby-webrick ruby-websocket-driver \
    ruby-websocket-extensions ruby-zeitwerk";

#[test]
#[ignore = "fetches fifty packages of Debian, and may make layers; scripts/test --all runs it"]
fn a_rails_app_with_a_database_is_built_and_run_on_debian_13() {
    let hokku = Hokku::with_config("[stack]\ndefault = \"debian-13\"\n");
    let kept = kept("all-of-debian-13");
    if kept.is_file() {
        hokku.ok(&["stack:import", kept.to_str().unwrap()]);
    }
    let packages = tempfile::tempdir().unwrap();
    unpack(packages.path(), "trixie", RAILS);
    unpack(packages.path(), "-", "ruby-sprockets-rails");
    rails_with_sqlite(&hokku, packages.path(), "7.2.2");
}

/// A layer of one small file.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(file: &str, contents: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("usr")).unwrap();
        std::fs::write(dir.path().join("usr").join(file), contents).unwrap();
        Self(dir)
    }

    fn digest(&self) -> String {
        digest_of_tree(self.0.path()).unwrap().to_string()
    }
}

/// An archive as an export writes it, of one base and one language, which may say something wrong about itself.
fn archive(path: &Path, base: &Tree, node: &Tree, change: impl FnOnce(&mut serde_json::Value)) {
    let about = tempfile::tempdir().unwrap();
    let made = |digest: &str, base: Option<&str>| json!({ "digest": digest, "base": base, "recipe": "", "packages": {}, "bytes": 1, "made_at": "2026-01-01T00:00:00Z" });
    let (below, above) = (base.digest(), node.digest());
    let mut manifest = json!({
        "format": 1, "stack": "debian-13", "architecture": std::env::consts::ARCH,
        "layers": { "base": made(&below, None), "nodejs": made(&above, Some(&below)) },
    });
    change(&mut manifest);
    std::fs::write(about.path().join("stack.json"), manifest.to_string()).unwrap();
    let trees = [("about", about.path()), (&*below, base.0.path()), (&*above, node.0.path())];
    bundle(&trees, std::fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn a_file_of_layers_is_taken_only_when_it_is_whole_and_for_this_machine() {
    let hokku = Hokku::start();
    let (base, node) = (Tree::new("base", "1"), Tree::new("node", "2"));
    let file = hokku.root().join("stack.tar.zst");
    let refused = |change: fn(&mut serde_json::Value), why: &str| {
        archive(&file, &base, &node, change);
        let error = hokku.fails(&["stack:import", file.to_str().unwrap()]);
        assert!(error.contains(why), "{error}");
    };
    refused(
        |manifest| manifest["layers"]["nodejs"]["digest"] = "0".repeat(64).into(),
        "That file is incomplete: its nodejs layer is missing.",
    );
    refused(|manifest| manifest["architecture"] = "vax".into(), "That stack was made for vax, and this machine is ");
    refused(|manifest| manifest["layers"] = json!({}), "That file is no exported stack");
    refused(|manifest| manifest["stack"] = "debian-14".into(), "it holds debian-14 in the form 1");
    refused(|manifest| manifest["layers"]["nodejs"]["base"] = "0".repeat(64).into(), "layer needs the base 0000000000");

    // What is under a layer's name is something else.
    let liar = Tree::new("node", "changed");
    archive(&file, &base, &liar, |_| {});
    let whole = std::fs::read(&file).unwrap();
    let mut tar = zstd::decode_all(&whole[..]).unwrap();
    let at = tar.windows(7).position(|bytes| bytes == b"changed").unwrap();
    tar[at] = b'C';
    std::fs::write(&file, &tar).unwrap();
    let error = hokku.fails(&["stack:import", file.to_str().unwrap()]);
    assert!(error.contains("That file is damaged: its nodejs layer has the digest "), "{error}");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(hokku.fails(&["stack:import", file.to_str().unwrap()]).contains("That file is no exported stack: it is"));
    std::fs::write(&file, "no archive at all").unwrap();
    let error = hokku.fails(&["stack:import", file.to_str().unwrap()]);
    assert!(error.contains("That file is no exported stack: it is not a tar archive"), "{error}");
    assert!(hokku.fails(&["stack:import", "/nowhere/at-all"]).contains("No such file"));
    assert_eq!(layers(&hokku), Vec::<serde_json::Value>::new());

    // Links in it lead nowhere, neither when it is read nor when it is made root's.
    let outside = hokku.root().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("shadow"), "kept").unwrap();
    std::os::unix::fs::symlink(&outside, node.0.path().join("etc")).unwrap();
    archive(&file, &base, &node, |_| {});
    hokku.ok(&["stack:import", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(outside.join("shadow")).unwrap(), "kept");
    assert_eq!(digest(&hokku, "nodejs"), node.digest());

    // And so it goes on to the next box.
    let exported = hokku.root().join("again.tar.zst");
    hokku.ok(&["stack:export", exported.to_str().unwrap()]);
    let other = Hokku::start();
    other.ok(&["stack:import", exported.to_str().unwrap()]);
    assert_eq!(layers(&other), layers(&hokku));
}

#[test]
fn a_stack_that_cannot_be_made_is_one_clear_sentence_and_leaves_nothing() {
    let hokku = Hokku::with_config("[stack]\ndefault = \"debian-13\"\nmirrors = [\"file:/nowhere/at-all\"]\n");
    let repository = hokku.app("lost", "node-hello");
    assert_eq!(hokku.json(&["info", "-a", "lost", "--json"])["app"]["stack"]["name"], "debian-13");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("The base layer could not be made: "), "{output}");
    let output = hokku.cli(&["stack:build", "--mirror", "no-url"]);
    assert!(text(&output.stdout).contains("\"no-url\" is not a mirror: give the URL"), "{}", text(&output.stdout));
    let error = hokku.fails(&["stack:update"]);
    assert!(error.contains("the stack is as it was before"), "{error}");
    let dir = hokku.root().join("stacks/debian-13");
    wait_for("nothing to be left", || (std::fs::read_dir(&dir).unwrap().count() == 0).then_some(()));
    let _: &Repository = &repository;
}

#[test]
fn without_mmdebstrap_it_is_said_which_package_brings_it() {
    with_mounts_of_its_own(|| {
        let mut hidden = 0;
        for dir in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"] {
            let tool = Path::new(dir).join("mmdebstrap");
            if tool.is_file() {
                mount(Some("/dev/null"), &tool, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
                hidden += 1;
            }
        }
        assert!(hidden > 0, "the other tests of this file need it");
        let hokku = Hokku::with_config("[stack]\ndefault = \"debian-13\"\n");
        let output = hokku.cli(&["stack:build"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        let advice = "is not installed: apt install mmdebstrap, or import the stack with hokku stack:import";
        assert!(!output.status.success() && said.contains(advice), "{said}");
        let repository = hokku.app("early", "echo");
        let output = hokku.push(&repository).expect_rejection();
        assert!(output.contains(advice), "{output}");
        assert_eq!(layers(&hokku), Vec::<serde_json::Value>::new());
    });
}
