//! Runtimes that an operator brings along: what is taken, and what builds make of it.

use crate::hokku::{Hokku, Repository};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `.tar.gz` of a directory with an executable `bin/NAME` that prints `says`.
fn archive(hokku: &Hokku, file: &str, name: &str, says: &str) -> PathBuf {
    let tree = hokku.root().join("made/tool-1");
    let _ = std::fs::remove_dir_all(&tree);
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    let program = tree.join("bin").join(name);
    std::fs::write(&program, format!("#!/bin/sh\necho {says}\n")).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&program).status().unwrap().success());
    let path = hokku.root().join(file);
    let tar =
        Command::new("tar").arg("-czf").arg(&path).arg("-C").arg(hokku.root().join("made")).arg("tool-1").status();
    assert!(tar.unwrap().success());
    path
}

#[test]
fn a_runtime_of_the_store_is_seen_by_builds_and_carried_by_the_slug() {
    let hokku = Hokku::start();
    let file = archive(&hokku, "node-v22.3.0-linux-x64.tar.gz", "node", "the node of the store");
    hokku.ok(&["runtime:import", file.to_str().unwrap()]);
    let rows = hokku.json(&["runtime:list", "--json"]);
    assert_eq!((&rows[0]["language"], &rows[0]["version"]), (&"node".into(), &"22.3.0".into()));
    assert!(hokku.ok(&["runtime"]).starts_with("node  22.3.0  "));

    let repository = Repository::of("inline-hello");
    hokku.ok(&["create", "carrier", "--no-remote"]);
    let compile = "#!/bin/sh\nset -e\n\"$HOKKU_RUNTIMES/node/22.3.0/bin/node\"\n\
                   ! touch \"$HOKKU_RUNTIMES/node/evil\" 2>/dev/null || echo writable\n\
                   mkdir -p \"$1/.heroku\" && cp -R \"$HOKKU_RUNTIMES/node/22.3.0\" \"$1/.heroku/node\"\n";
    repository.write("bin/compile", compile);
    let output = hokku.ok(&["deploy", repository.path().to_str().unwrap(), "-a", "carrier"]);
    assert!(output.contains("the node of the store") && !output.contains("writable"), "{output}");

    // It outlives the store's.
    hokku.ok(&["runtime:remove", "node", "22.3.0"]);
    assert_eq!(hokku.json(&["runtime:list", "--json"]), serde_json::json!([]));
    let said = hokku.ok(&["run", "-a", "carrier", "--no-tty", "--", ".heroku/node/bin/node"]);
    assert_eq!(said, "the node of the store\n");
}

#[test]
fn what_is_no_runtime_is_refused_in_a_sentence() {
    let hokku = Hokku::start();
    let file = archive(&hokku, "something.tar.gz", "tool", "x");
    let file = file.to_str().unwrap();
    let refused = |args: &[&str], why: &str| {
        let error = hokku.fails(&[&["runtime:import"], args].concat());
        assert!(error.contains(why), "{error}");
    };
    refused(&[file], "does not tell which runtime it is: say it with --language and --version.");
    refused(&[file, "--language", "tool"], "does not tell which runtime it is");
    refused(&[file, "--language", "../x", "--version", "1"], "is not a language's name");
    refused(&[file, "--language", "tool", "--version", "../1"], "is not a version");
    let wrong = "0".repeat(64);
    refused(&[file, "--language", "tool", "--version", "1", "--sha256", &wrong], "The checksum of the source is");
    refused(&[file, "--language", "tool", "--version", "1", "--sha256", "12"], "is not a sha256 of 64 hex digits");
    let garbage = hokku.root().join("garbage");
    std::fs::write(&garbage, "no archive").unwrap();
    refused(&[garbage.to_str().unwrap(), "--language", "tool", "--version", "1"], "it is not a tar archive");
    let empty = Path::new(file).with_file_name("empty.tar");
    let tar = Command::new("tar").arg("-cf").arg(&empty).args(["-C", "/etc", "passwd"]).status();
    assert!(tar.unwrap().success());
    refused(&[empty.to_str().unwrap(), "--language", "tool", "--version", "1"], "has no bin/ directory");

    hokku.ok(&["runtime:import", file, "--language", "tool", "--version", "v1"]);
    refused(&[file, "--language", "tool", "--version", "1"], "Tool 1 is in the store already");
    assert!(hokku.fails(&["runtime:remove", "tool", "2"]).contains("Couldn't find that runtime."));
    let left: Vec<_> =
        std::fs::read_dir(hokku.root().join("runtimes")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tool"]);
}
