//! Our buildpacks and the driver for real: package managers install from their registries, others' packs get the classic
//! API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod classic;
mod fetched;
mod go;
mod jvm;
mod loopback;
mod nodejs;
mod php;
mod python;
mod ruby;

use crate::bench::{APP, Bench, answers, fixtures};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn apps_of_no_known_language_are_told_what_there_is() {
    let bench = Bench { fixture: fixtures().join("inline-hello/public"), ..Bench::new("node-hello") };
    let text = bench.build().failed();
    assert!(text.contains("No default language could be detected for this app."), "{text}");
    assert!(text.contains("heroku/nodejs"), "{text}");
}

/// A lock that has no gems.
const LOCK: &str = "GEM\n  specs:\n\nPLATFORMS\n  x86_64-linux\n\nDEPENDENCIES\n";

#[test]
fn an_app_that_does_not_say_how_it_is_started_is_told_what_to_write() {
    let hello = fs::read_to_string(fixtures().join("apps/java-bare/src/main/java/Hello.java")).unwrap();
    let pom = fs::read_to_string(fixtures().join("apps/java-bare/pom.xml")).unwrap();
    let locked = r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{}}"#;
    for (files, said) in [
        (
            &[("package.json", r#"{"name":"x","version":"1.0.0"}"#), ("package-lock.json", locked)][..],
            "This app does not say how to start it: there is no Procfile, no \"start\" script in",
        ),
        (&[("requirements.txt", "flask==3.1.0\n")], "For Flask write for example"),
        (&[("requirements.txt", "fastapi==0.115.12\n")], "For FastAPI write for example"),
        (&[("requirements.txt", "")], "This app has no Procfile, so nothing says how to start it."),
        (&[("Gemfile", ""), ("Gemfile.lock", LOCK)], "    web: bundle exec puma -p $PORT"),
        (&[("pom.xml", &pom), ("src/main/java/Hello.java", &hello)], "    web: java $JAVA_OPTS -jar target/"),
    ] {
        let bench = files.iter().fold(Bench::new("inline-hello/public"), |bench, (name, text)| bench.file(name, text));
        let built = bench.build().succeeded().said(said);
        assert!(!built.types().iter().any(|line| line.starts_with("web")), "{files:?}: {:?}", built.types());
    }
}

/// The nearest that will do is taken with a warning, unless the app says that it is not to be.
#[test]
fn a_version_that_is_not_to_be_had_is_an_error_where_the_app_is_strict() {
    let bench = |app: &str, files: &[(&str, &str)], strict: &str| {
        let bench = Bench { cut_off: true, ..Bench::new(app) }.config("HOKKU_STRICT_RUNTIME", strict);
        files.iter().fold(bench, |bench, (name, text)| bench.file(name, text)).build()
    };
    for (app, files, asks) in [
        ("apps/ruby-bare", &[("Gemfile", "ruby '3.1.99'\n")][..], "Gemfile asks for Ruby 3.1.99"),
        (
            "apps/ruby-bare",
            &[("Gemfile", ""), ("Gemfile.lock", LOCK), (".ruby-version", "3.0.7\n")],
            ".ruby-version asks for Ruby 3.0.7",
        ),
        ("apps/python-bare", &[(".python-version", "3.11.99\n")], ".python-version asks for Python 3.11.99"),
    ] {
        let said = bench(app, files, "1").failed();
        assert!(said.contains(&format!("{asks}, but this machine has 3.1")), "{said}");
        assert!(said.contains("HOKKU_STRICT_RUNTIME forbids another version."), "{said}");
        assert!(said.contains("installed on") && said.contains(" to have the app built with 3.1"), "{said}");
        bench(app, files, "no").succeeded().said(&format!("{asks}, but this machine has 3.1"));
    }
    for (file, text, asks) in [
        (
            "system.properties",
            "java.runtime.version=11\n",
            "system.properties asks for Java 11, but this machine has 17.",
        ),
        (".java-version", "temurin-17.0.99+1\n", ".java-version asks for Java 17.0.99, but this machine has 17."),
    ] {
        let said = bench("apps/java-bare", &[("system.properties", ""), (file, text)], "true").failed();
        assert!(said.contains(asks) && said.contains("`hokku runtime:import FILE`"), "{said}");
    }
}

/// A runtime that an operator has brought to the box.
#[test]
fn a_java_of_the_store_is_found_by_its_exact_version() {
    let bench = Bench::new("inline-hello/public").packs(&["heroku/jvm"]).file("Procfile", "web: java -version");
    let stored = |version: &str, bench: &Bench| {
        // The cache has the form of the store, and a test may write there.
        let jdk = bench.root.path().join(format!("cache/{APP}/jvm/runtimes/java/{version}"));
        fs::create_dir_all(jdk.join("bin")).unwrap();
        for program in ["java", "javac"] {
            fs::write(jdk.join("bin").join(program), format!("#!/bin/sh\necho kept {version}\n")).unwrap();
            fs::set_permissions(jdk.join("bin").join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    stored("21.0.2", &bench);
    stored("21.0.3", &bench);
    let built = bench.file(".java-version", "21.0.2\n").build().succeeded();
    let built = built.said("Using OpenJDK 21.0.2 as .java-version asks for 21.0.2");
    assert_eq!(built.in_a_dyno("java -version"), "kept 21.0.2");
}

#[test]
fn scripts_are_shellcheck_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts: Vec<PathBuf> = ["buildpacks", "tests/fixtures"]
        .iter()
        .flat_map(|dir| walkdir::WalkDir::new(root.join(dir)))
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && fs::read(path).unwrap().starts_with(b"#"))
        .filter(|path| {
            let first = fs::read_to_string(path).unwrap_or_default();
            first.starts_with("#!/usr/bin/env bash") || first.starts_with("# shellcheck shell=bash")
        })
        .collect();
    assert!(scripts.len() > 10, "{scripts:?}");
    let checked = Command::new("shellcheck").arg("-x").args(&scripts).current_dir(root).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A build with a cache, after a change of the app's own code and, where there is one, of a dependency's version.
fn shows(app: &str, changes: &[(&str, &str, &str)], answer: &str) {
    let first = Bench::new(app);
    first.build().succeeded();
    let edited = changes.iter().fold(first, |bench, (file, from, to)| {
        let text = fs::read_to_string(bench.fixture.join(file)).unwrap();
        assert!(text.contains(from), "no {from:?} in {file}");
        bench.file(file, &text.replace(from, to))
    });
    answers(&edited.build().succeeded(), answer);
}

#[test]
fn what_has_changed_shows_in_a_build_that_has_a_cache() {
    let six = ("requirements.txt", "1.17.0", "1.16.0");
    shows("python-hello", &[six, ("app.py", "hello", "changed")], "changed from python, six 1.16.0");
    shows("apps/go-chi", &[("cmd/hello/main.go", "hello", "changed")], "changed from web.1, chi");
    shows("apps/php-composer", &[("packages/greeter/src/Greeter.php", "hello", "changed")], "changed from web.1");
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn what_has_changed_shows_in_a_build_on_the_jvm_that_has_a_cache() {
    let hello = "src/main/java/org/example/Hello.java";
    let changes = [("pom.xml", "3.5.7", "3.5.6"), (hello, "hello from", "changed from")];
    shows("apps/java-spring", &changes, "changed from web.1, Spring Boot 3.5.6");
    let changes = [("build.sbt", "2.13.16", "2.13.15"), ("src/main/scala/Hello.scala", "hello from", "changed from")];
    shows("apps/scala-bare", &changes, "changed from web.1, Scala 2.13.15");
    let changes = [("project.clj", "1.11.1", "1.11.4"), ("src/hello.clj", "hello from", "changed from")];
    shows("apps/clojure-lein", &changes, "changed from web.1, Clojure 1.11.4");
}

#[test]
fn without_a_network_a_build_that_needs_one_fails_within_seconds_and_says_why() {
    for (app, said) in [
        ("node-hello", "The package registry can't be reached from this machine."),
        ("apps/nodejs-pnpm", "The package registry can't be reached from this machine."),
        ("python-hello", "The package index can't be reached from this machine."),
        ("apps/go-chi", "The Go module proxy can't be reached from this machine."),
        ("apps/java-bare", "The repository of Java packages can't be reached from this machine."),
        ("apps/scala-bare", "The repository of Java packages can't be reached from this machine."),
        ("apps/clojure-lein", "The repository of Java packages can't be reached from this machine."),
        ("apps/ruby-sinatra", "The gem server can't be reached from this machine."),
    ] {
        let began = Instant::now();
        let text = Bench { cut_off: true, ..Bench::new(app) }.build().failed();
        assert!(text.contains(said), "{app}: {text}");
        assert!(began.elapsed() < Duration::from_secs(60), "{app} took {:?}", began.elapsed());
    }
}
