//! Go apps: modules and toolchains come from the real module proxy.

use crate::bench::Bench;
use std::process::Command;

#[test]
fn a_go_app_is_built_and_its_only_program_is_web() {
    let bench = Bench::new("apps/go-bare");
    let built = bench.build().succeeded().said("-----> Go app detected").said("(go.mod asks for 1.19 or newer)");
    assert_eq!(built.types(), ["web: bin/hello"]);
    assert!(built.made("bin/hello").is_file());
}

#[test]
fn modules_of_a_go_app_come_from_the_proxy_once() {
    let bench = Bench::new("apps/go-chi");
    let built = bench.build().succeeded().said("go-chi/chi");
    assert_eq!(built.types(), ["web: bin/hello", "worker: bin/worker"]);
    Bench { cut_off: true, ..bench }.build().succeeded();
}

/// Nothing has to be fetched for it, and what does not fit to `go.mod` is said.
#[test]
fn modules_in_the_folder_vendor_are_used_without_a_network() {
    let source = tempfile::tempdir().unwrap();
    let bench = Bench { cut_off: true, ..Bench::new("apps/go-chi") };
    bench.lay_source(source.path());
    let vendored = Command::new("/usr/bin/go").args(["mod", "vendor"]).current_dir(source.path()).status().unwrap();
    assert!(vendored.success());
    let bench = Bench { fixture: source.path().to_owned(), ..bench };
    let built = bench.build().succeeded().said("Using the modules in the folder vendor");
    assert!(built.made("bin/hello").is_file());

    let text = bench.file("vendor/modules.txt", "# github.com/go-chi/chi/v5 v5.0.11\n").build().failed();
    assert!(text.contains("The folder vendor does not fit to go.mod."), "{text}");
}

#[test]
#[ignore = "takes a minute or more; scripts/test --all runs it"]
fn a_go_that_the_machine_has_not_comes_from_the_proxy() {
    let bench = Bench::new("apps/go-bare").config("GOVERSION", "go1.22");
    bench.build().succeeded().said("Using go1.22.12 (the config var GOVERSION asks for 1.22)");
    Bench { cut_off: true, ..bench }.build().succeeded().said("Using go1.22.12");
}

#[test]
fn mistakes_of_go_apps_end_in_a_paragraph() {
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(Bench::new("apps/go-chi").file("go.sum", ""));
    assert!(text.contains("go.mod or go.sum lack something that the code imports."), "{text}");
    let text = failed(Bench::new("apps/go-bare").file("main.go", "package hello\n"));
    assert!(text.contains("No package of this app is a program"), "{text}");
    let text = failed(Bench::new("apps/go-bare").file("main.go", "package main\n\nfunc main() { x }\n"));
    assert!(text.contains("main.go:3:15: undefined: x") && text.contains("could not be built"), "{text}");
    let text = failed(Bench::new("apps/go-bare").config("GOVERSION", "newest"));
    assert!(text.contains("the config var GOVERSION does not name a version of Go: newest"), "{text}");
    let text = failed(Bench::new("apps/go-bare").config("GOVERSION", "1.99"));
    assert!(text.contains("the config var GOVERSION asks for Go 1.99, but this machine has"), "{text}");
    let text = failed(Bench { cut_off: true, ..Bench::new("apps/go-chi") });
    assert!(text.contains("The Go module proxy can't be reached from this machine."), "{text}");
}
