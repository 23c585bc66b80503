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

use crate::bench::{APP, Bench, fixtures};
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

/// The nearest that will do is taken with a warning, unless the app says that it is not to be.
#[test]
fn a_version_that_is_not_to_be_had_is_an_error_where_the_app_is_strict() {
    const LOCK: &str = "GEM\n  specs:\n\nPLATFORMS\n  x86_64-linux\n\nDEPENDENCIES\n";
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
