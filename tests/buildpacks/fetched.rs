//! Where buildpacks come from: repositories, archives, files of the source.

use crate::bench::Bench;
use crate::classic::marker;
use crate::loopback::Served;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The marker buildpack in a repository of its own, as `pack.git` and `pack.tgz` below the returned directory.
fn published(bench: &Bench) -> PathBuf {
    let (pack, place) = (marker(bench), bench.root.path().join("published"));
    fs::create_dir(&place).unwrap();
    let script = "cd \"$1\" && git init -q -b main && git add -A && git -c user.name=t -c user.email=t@localhost commit -qm first &&
        git tag v1 && git rev-parse HEAD >\"$2/commit\" && sed -i 's/Marker/Newer/' bin/detect &&
        git -c user.name=t -c user.email=t@localhost commit -qam second && git clone -q --bare . \"$2/pack.git\" &&
        git archive --format=tgz --prefix=pack-main/ -o \"$2/pack.tgz\" v1 && git -C \"$2/pack.git\" update-server-info";
    let done = Command::new("sh").args(["-ec", script, "-", &pack]).arg(&place).status().unwrap();
    assert!(done.success());
    place
}

#[test]
fn buildpacks_come_from_a_repository_by_branch_tag_and_commit() {
    let bench = Bench::new("inline-hello").config("SECRET", "x");
    let place = published(&bench);
    let commit = fs::read_to_string(place.join("commit")).unwrap();
    let (daemon, http) = (Served::git(&place), Served::http(&place));
    let smart = format!("git://127.0.0.1:{}/pack.git", daemon.port);
    // Knows no shallow clones.
    let plain = format!("http://127.0.0.1:{}/pack.git", http.port);
    let mut bench = bench;
    for (url, name) in [
        (smart.clone(), "Newer"),
        (format!("{smart}#main"), "Newer"),
        (format!("{smart}#v1"), "Marker"),
        (format!("{smart}#{}", commit.trim()), "Marker"),
        (plain.clone(), "Newer"),
        (format!("{plain}#v1"), "Marker"),
    ] {
        bench = bench.packs(&[&url]);
        bench.build().succeeded().said(&format!("-----> {name} app detected"));
    }
    let text = bench.packs(&[&format!("{smart}#nowhere")]).build().failed();
    assert!(text.contains("Can't fetch the buildpack") && text.contains("nowhere"), "{text}");
}

#[test]
fn buildpacks_come_from_an_archive() {
    let bench = Bench::new("inline-hello").config("SECRET", "x");
    let http = Served::http(&published(&bench));
    let bench = bench.packs(&[&format!("http://127.0.0.1:{}/pack.tgz", http.port)]);
    bench.build().succeeded().said("-----> Marker app detected");
    let bench = bench.packs(&[&format!("http://127.0.0.1:{}/commit.tgz", http.port)]);
    let text = bench.build().failed();
    assert!(text.contains("Can't fetch the buildpack http://127.0.0.1:") && text.contains("404"), "{text}");
}

#[test]
fn a_buildpack_that_cannot_be_fetched_says_so() {
    let text = Bench::new("inline-hello").packs(&["https://127.0.0.1:1/x.git#main"]).build().failed();
    assert!(text.contains("Can't fetch the buildpack https://127.0.0.1:1/x.git#main."), "{text}");
    assert!(text.contains("unable to access"), "{text}");
}
