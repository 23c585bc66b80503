//! git over TLS, with the CLI's credential helper.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, Repository, text};
use std::process::Output;

fn git(heroku: &Heroku, repository: &Repository, args: &[&str]) -> Output {
    let mut git = repository.git(args);
    heroku.environment(&mut git).output().unwrap()
}

#[test]
fn a_push_over_https_deploys() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let repository = Repository::of("echo");
    let at = |args: &[&str]| heroku.command(args).current_dir(repository.path()).output().unwrap();
    assert!(at(&["create", "shop"]).status.success());
    let pushed = git(&heroku, &repository, &["push", "heroku", "main"]);
    let said = text(&pushed.stderr);
    assert!(pushed.status.success() && said.contains("remote:        Released v3"), "{said}");
    assert_eq!(hokku.get("shop", "/").status, 200);
    // The remote is what says which app is meant.
    assert!(text(&at(&["ps"]).stdout).contains("web.1: up"));
    assert_eq!(text(&at(&["config"]).stdout).trim(), "=== shop Config Vars");

    let clone = tempfile::tempdir().unwrap();
    let cloned = heroku.command(&["git:clone", "-a", "shop", "copy"]).current_dir(clone.path()).output().unwrap();
    assert!(cloned.status.success(), "{}", text(&cloned.stderr));
    assert!(clone.path().join("copy/Procfile").exists());

    let other = Repository::of("echo");
    let set = heroku.command(&["git:remote", "-a", "shop", "-r", "there"]).current_dir(other.path()).output().unwrap();
    assert!(set.status.success(), "{}", text(&set.stderr));
    let url = format!("https://{}/shop.git", hokku.api);
    assert_eq!(other.run(&["remote", "get-url", "there"]).trim(), url);
    let listed = git(&heroku, &other, &["ls-remote", "there", "main"]);
    assert_eq!(text(&listed.stdout).split_whitespace().next(), Some(repository.run(&["rev-parse", "HEAD"]).trim()));

    // A broken build leaves ref and release as they were.
    repository.write("fail", "").commit("broken");
    let rejected = git(&heroku, &repository, &["push", "heroku", "main"]);
    assert!(!rejected.status.success() && text(&rejected.stderr).contains("[remote rejected]"));
    assert_eq!(hokku.json(&["releases", "--json", "-a", "shop"])[0]["version"], 3);

    let strange = std::process::Command::new("git").args(["ls-remote", &url]).env("GIT_TERMINAL_PROMPT", "0").output();
    assert!(text(&strange.unwrap().stderr).contains("certificate"), "no authority vouches for it there");
}
