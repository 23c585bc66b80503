//! Tokens.

use crate::heroku::{Heroku, Said};
use crate::hokku::{Hokku, Repository};

/// The value of a line `Name: value`.
fn value(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().to_owned()
}

#[test]
fn tokens_are_made_for_a_purpose_renewed_and_revoked() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let repository = Repository::of("echo");
    hokku.ok(&["create", "shop"]);
    hokku.ok(&["config:set", "A=1", "-a", "shop"]);
    let with =
        |token: &str, args: &[&str]| Said::of(&heroku.command(args).env("HEROKU_API_KEY", token).output().unwrap());
    let made = heroku.ok(&["authorizations:create", "-d", "status page", "-s", "read", "-e", "3600"]);
    let (id, token) = (value(&made, "ID"), value(&made, "Token"));
    assert_eq!(value(&made, "Scope"), "read");
    assert!(with(&token, &["apps"]).out.contains("shop"));
    let refused = with(&token, &["config", "-a", "shop"]);
    assert!(refused.status != 0 && refused.err.contains("does not permit that"), "{refused:?}");
    assert_ne!(with(&token, &["create"]).status, 0);
    assert_eq!(hokku.json(&["apps", "--json"]).as_array().unwrap().len(), 1);
    let url = format!("http://x:{token}@{}/shop.git", hokku.api);
    assert!(repository.git(&["ls-remote", &url]).output().unwrap().status.success());
    assert!(!repository.git(&["push", &url, "main"]).output().unwrap().status.success(), "a push writes");

    assert!(heroku.ok(&["authorizations"]).contains("status page"));
    heroku.done(&["authorizations:update", &id, "-d", "dashboard"]);
    assert_eq!(value(&heroku.ok(&["authorizations:info", &id]), "Description"), "dashboard");
    let renewed = value(&heroku.ok(&["authorizations:rotate", &id]), "Token");
    assert!(with(&token, &["apps"]).status != 0 && with(&renewed, &["apps"]).status == 0);
    heroku.done(&["authorizations:revoke", &id]).with("revoked authorization from dashboard");
    assert_ne!(with(&renewed, &["apps"]).status, 0);

    // A login that is kept in ~/.netrc, and its end.
    let token = heroku.ok(&["authorizations:create", "-S"]).trim().to_owned();
    let netrc = format!("machine {}\n  login admin@localhost\n  password {token}\n", hokku.api);
    std::fs::write(heroku.home().join(".netrc"), netrc).unwrap();
    let plainly = |args: &[&str]| Said::of(&heroku.command(args).env_remove("HEROKU_API_KEY").output().unwrap());
    assert_eq!(plainly(&["auth:whoami"]).out, "admin@localhost\n");
    assert_eq!(plainly(&["auth:logout"]).status, 0);
    assert_ne!(plainly(&["auth:whoami"]).status, 0);
    assert_ne!(with(&token, &["auth:whoami"]).status, 0, "the server has forgotten it too");
}
