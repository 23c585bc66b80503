//! Buildpacks of others: the classic API, clause by clause.

use crate::bench::{Bench, fixtures};
use hokku::build::Buildpack;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn an_app_may_bring_its_own_buildpack() {
    let built = Bench::new("inline-hello").build().succeeded().said("-----> Inline app detected");
    assert_eq!(built.types(), ["web: python3 -m http.server \"$PORT\" --directory public"]);
    assert_eq!(built.text("public/index.html"), "hello from an inline buildpack\n");
}

/// A copy of the fixture that everyone may read, wherever the checkout is.
pub(crate) fn marker(bench: &Bench) -> String {
    let pack = bench.root.path().join("buildpack-marker");
    let from = fixtures().join("buildpack-marker");
    assert!(Command::new("cp").args(["-r", "-T"]).args([from.as_path(), &pack]).status().unwrap().success());
    for entry in walkdir::WalkDir::new(&pack) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
    }
    pack.display().to_string()
}

fn marked(fixture: &str) -> Bench {
    let bench = Bench::new(fixture).config("SECRET", "two\nlines $HOME \"x\"");
    let pack = marker(&bench);
    bench.packs(&[&pack])
}

#[test]
fn buildpacks_of_others_get_the_classic_api() {
    let built = marked("inline-hello").build().succeeded();
    let marker = built.text("marker");
    let lines: Vec<&str> = marker.lines().collect();
    let dir = format!("/tmp/build_{}", lines[0].strip_prefix("build /tmp/build_").unwrap());
    assert_eq!(lines[1..4], ["cache /build/cache", &format!("cwd {dir}"), "home /app, 0 files"]);
    let must = "CURL_CONNECT_TIMEOUT CURL_TIMEOUT DYNO HOME LANG PATH REQUEST_ID SOURCE_VERSION STACK";
    for name in must.split(' ') {
        assert!(lines[4].split(' ').any(|found| found == name), "{name} is missing in {}", lines[4]);
    }
    for name in ["SECRET", "GIT_DIR", "USER", "CACHE_DIR", "BUILD_DIR"] {
        assert!(!lines[4].split(' ').any(|found| found == name), "{name} is in {}", lines[4]);
    }
    let secret: String = built.text("marker-secret").split_whitespace().collect();
    assert_eq!(secret, "two\\nlines$HOME\"x\"", "the raw value without a newline at its end");
    assert_eq!(built.in_a_dyno("echo $MARKED"), "by default");
}

#[test]
fn a_build_that_fails_leaves_the_cache_of_the_last_good_one() {
    let bench = marked("inline-hello");
    bench.build().succeeded();
    let failing = Bench { extra: vec![(".fail".into(), vec![])], packs: bench.packs.clone(), ..bench };
    let text = failing.build().failed();
    assert!(text.contains("found the cache of build 1") && text.contains("failed to compile Marker app"), "{text}");
    let again = Bench { extra: vec![], ..failing };
    again.build().succeeded().said("found the cache of build 1");
    again.build().succeeded().said("found the cache of build 2");
}

#[test]
fn several_buildpacks_run_in_order_and_export_to_the_next() {
    let mut bench = marked("python-hello").file("bin/post_compile", "#!/bin/bash\necho \"marked: $MARKED_BUILD\"\n");
    bench.packs.push(Buildpack::parse("heroku/python").unwrap());
    let built =
        bench.build().succeeded().said("-----> Using buildpacks:\n       1. ").said("\n       2. heroku/python\n");
    let built = built.said("-----> Marker app detected").said("       marked: yes");
    assert_eq!(built.outcome().name, "Python");
    assert!(built.made("marker").is_file());
    // Built elsewhere, and yet at the place where dynos have it.
    assert_eq!(built.in_a_dyno("python -c 'import six, sys; print(sys.prefix)'"), "/app/.heroku/python");
}

#[test]
fn a_listed_buildpack_that_does_not_fit_says_why() {
    let bench = marked("inline-hello").file(".no-marker", "");
    let text = bench.build().failed();
    assert!(text.contains("-----> App not compatible with buildpack: "), "{text}");
    assert!(text.contains("       This app does not want a marker\n"), "{text}");

    let text = Bench::new("inline-hello").packs(&["heroku/nodejs"]).build().failed();
    assert!(text.contains("Error: there is no package.json in the root directory of your app."), "{text}");
}

#[test]
fn a_file_in_the_source_lists_buildpacks() {
    let bench = Bench::new("python-hello").config("SECRET", "x");
    let list = format!("# ours last\n{}\n\nheroku/python\n", marker(&bench));
    let built = bench.file(".buildpacks", &list).build().succeeded();
    let built = built.said("-----> Using buildpacks:\n       1. ").said("\n       2. heroku/python\n");
    assert!(built.made("marker").is_file());

    let bench = Bench::new("python-hello").file(".buildpacks", "heroku/nodejs\n");
    bench.config("BUILDPACK_URL", "heroku/python").build().succeeded().said("-----> Using buildpack: heroku/python");
}

/// A buildpack with these scripts, none of them executable; the bench lists it last.
fn with_pack(bench: Bench, name: &str, scripts: &[(&str, &str)]) -> Bench {
    let pack = bench.root.path().join(name);
    fs::create_dir_all(pack.join("bin")).unwrap();
    let usual = [("detect", "echo Odd"), ("compile", "true")];
    for (script, text) in usual.iter().chain(scripts) {
        fs::write(pack.join("bin").join(script), format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
    }
    let mut bench = bench;
    bench.packs.push(Buildpack::parse(pack.to_str().unwrap()).unwrap());
    bench
}

fn odd(scripts: &[(&str, &str)]) -> Bench {
    with_pack(Bench::new("inline-hello/public"), "odd", scripts)
}

#[test]
fn what_release_prints_may_be_anything_that_heroku_takes() {
    for (release, types) in [
        ("", vec![]),
        ("echo", vec![]),
        ("echo ---", vec![]),
        ("echo '--- {}'", vec![]),
        ("printf -- '---\nconfig_vars:\naddons:\ndefault_process_types:\n  web: run $PORT'", vec!["web: run $PORT"]),
        ("printf -- 'default_process_types: {\"web\": \"a: b\", worker: 5}'", vec!["web: a: b", "worker: 5"]),
        ("echo 'to stderr' >&2; printf -- '---\n# comment\ndefault_process_types:\n  web: \"x\"\n'", vec!["web: x"]),
    ] {
        assert_eq!(odd(&[("release", release)]).build().succeeded().types(), types, "{release}");
    }
    let text = odd(&[("release", "echo broken >&2; exit 2")]).build().failed();
    assert!(text.contains("Push rejected, bin/release of ") && text.contains("failed."), "{text}");
    odd(&[]).build().succeeded();
}

#[test]
fn a_compile_that_fails_or_dies_is_rejected() {
    for compile in ["exit 7", "kill -9 $$", "false", "exec /nowhere"] {
        let text = odd(&[("compile", compile)]).build().failed();
        assert!(text.contains(" !     Push rejected, failed to compile Odd app."), "{compile}: {text}");
    }
    let text = odd(&[("detect", "kill -9 $$")]).build().failed();
    assert!(text.contains("App not compatible with buildpack"), "{text}");
}

#[test]
fn output_is_kept_whole_whatever_its_form() {
    let compile = "printf 'no newline'; printf '\nerr\n' >&2; head -c 10485760 /dev/zero | tr '\\0' x | fold -w 100; echo; \
                   printf '\\xff\\xfe binary\n'; printf end";
    let built = odd(&[("compile", compile)]).build().succeeded();
    assert!(built.output.contains("no newline\nerr\n"), "in order");
    assert!(built.output.len() > 10_485_760 && built.output.contains("end"), "{} bytes", built.output.len());
}

#[test]
fn standard_input_is_empty_and_a_child_that_is_left_running_does_not_hold_the_build() {
    let began = std::time::Instant::now();
    let compile = "[ -z \"$(cat)\" ] || exit 1; sleep 600 & (setsid sleep 600 >/dev/null 2>&1 &)";
    odd(&[("compile", compile)]).build().succeeded();
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn a_pack_may_export_and_its_files_are_fresh_in_every_build() {
    let first = "[ ! -e \"$(dirname \"$0\")/../export\" ] || exit 1
        echo 'export SEEN=\"a b\" PATH=\"/made/up:$PATH\"; unset LANG; set -f' >\"$(dirname \"$0\")/../export\"";
    let second = "echo \"seen: $SEEN, ${PATH%%:*}, ${LANG-none}, $PWD\"; [ \"$PWD\" = \"$1\" ]";
    let bench = with_pack(odd(&[("compile", first)]), "second", &[("compile", second)]);
    for _ in 0..2 {
        bench.build().succeeded().said("seen: a b, /made/up, none, /tmp/build_");
    }
}

#[test]
fn config_vars_are_files_and_nothing_of_the_server_is_in_the_environment() {
    let compile = "[ \"$(cat \"$3/ODD\")\" = \"$(printf 'a\\nb')\" ] && [ -z \"${ODD+x}\" ] && [ \"$(wc -c <\"$3/EMPTY\")\" = 0 ] &&
        [ -z \"${HOKKU_ROOT+x}\" ] && [ -n \"$REQUEST_ID\" ] && [ \"$SOURCE_VERSION\" = 1a2b3c4d ] && [[ $STACK == heroku-* ]] &&
        [ -w /app ] && [ -z \"$(ls -A /app)\" ] && [ \"$HOME\" = /app ] && touch /app/x \"$(dirname \"$0\")/y\" && [ \"$(id -u)\" = 1000 ]";
    let bench = odd(&[("compile", compile)]).config("ODD", "a\nb").config("EMPTY", "");
    let built = bench.build().succeeded();
    assert!(!built.made("x").exists(), "what is written to /app is not the app");
}
