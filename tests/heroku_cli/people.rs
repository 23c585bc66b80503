//! Accounts, access, transfers, locks and keys.

use crate::heroku::{Heroku, Said};
use crate::hokku::Hokku;
use crate::tty::Terminal;
use std::fs;

/// A token of a new account.
fn token_of(hokku: &Hokku, email: &str) -> String {
    let made = hokku.json(&["users:create", email, "--json"]);
    token_of_password(hokku, email, made["password"].as_str().unwrap())
}

fn token_of_password(hokku: &Hokku, email: &str, password: &str) -> String {
    let script = format!("echo {password} | {} auth:login --email {email}", env!("CARGO_BIN_EXE_hokku"));
    let mut command = std::process::Command::new("sh");
    let said = command.args(["-c", &script]).env("HOKKU_HOST", format!("http://{}", hokku.api)).output().unwrap();
    let printed = String::from_utf8(said.stdout).unwrap();
    let token = printed.lines().find_map(|line| line.strip_prefix("export HOKKU_API_KEY="));
    token.unwrap_or_else(|| panic!("no token in {printed:?}")).to_owned()
}

#[test]
fn access_is_given_taken_and_refused() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let (ann, bob) = (token_of(&hokku, "ann@example.com"), token_of(&hokku, "bob@example.com"));
    let with =
        |token: &str, args: &[&str]| Said::of(&heroku.command(args).env("HEROKU_API_KEY", token).output().unwrap());
    let fine = |token: &str, args: &[&str]| {
        let said = with(token, args);
        assert_eq!(said.status, 0, "heroku {args:?}: {said:?}");
        said
    };
    assert_eq!(fine(&ann, &["auth:whoami"]).out, "ann@example.com\n");
    fine(&ann, &["create", "shop", "--no-remote"]);
    fine(&ann, &["config:set", "A=1", "-a", "shop"]);
    let hidden = with(&bob, &["info", "-a", "shop"]);
    assert!(hidden.status != 0 && hidden.err.contains("Couldn't find that app."), "{hidden:?}");
    assert!(!fine(&bob, &["apps", "--all"]).out.contains("shop"));

    fine(&ann, &["access:add", "bob@example.com", "-a", "shop"]);
    let rows = fine(&ann, &["access", "-a", "shop"]).out;
    assert!(rows.contains("bob@example.com") && rows.contains("collaborator"), "{rows}");
    fine(&bob, &["apps"]).with("shop");
    fine(&bob, &["config:set", "B=2", "-a", "shop"]);
    let config = hokku.json(&["config", "--json", "-a", "shop"]);
    assert_eq!(config["B"], "2");
    let refused = with(&bob, &["apps:destroy", "-a", "shop", "--confirm", "shop"]);
    assert!(refused.status != 0 && refused.err.contains("permission to manage"), "{refused:?}");
    hokku.ok(&["access:update", "bob@example.com", "-p", "view", "-a", "shop"]);
    let refused = with(&bob, &["config", "-a", "shop"]);
    assert!(refused.status != 0 && refused.err.contains("permission to deploy"), "{refused:?}");
    let url = |token: &str| format!("http://x:{token}@{}/shop.git", hokku.api);
    let listed = |token: &str| {
        let mut command = std::process::Command::new("git");
        command.args(["ls-remote", &url(token)]).env("GIT_TERMINAL_PROMPT", "0").output().unwrap()
    };
    assert!(listed(&ann).status.success());
    let refused = listed(&bob);
    assert!(!refused.status.success(), "who may not deploy does not see the code: {refused:?}");

    fine(&ann, &["apps:lock", "-a", "shop"]);
    let locked = heroku.fails(&["apps:join", "-a", "shop"]);
    assert!(locked.contains("locked"), "{locked}");
    fine(&ann, &["apps:unlock", "-a", "shop"]);
    heroku.done(&["apps:join", "-a", "shop"]);
    heroku.done(&["apps:leave", "-a", "shop"]);
    fine(&bob, &["apps:leave", "-a", "shop"]);
    assert_ne!(with(&bob, &["info", "-a", "shop"]).status, 0);

    fine(&ann, &["apps:transfer", "bob@example.com", "-a", "shop"]);
    assert_ne!(with(&bob, &["info", "-a", "shop"]).status, 0, "not before he has accepted it");
    let accept = hokku.command(&["apps:transfers:accept", "shop"]).output().unwrap();
    assert!(accept.status.success(), "an administrator may answer for him: {accept:?}");
    fine(&bob, &["info", "-a", "shop"]).with("bob@example.com");

    let told = hokku.json(&["audit", "--json", "-a", "shop"]);
    let told: Vec<(&str, &str)> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["actor"]["email"].as_str().unwrap(), row["action"].as_str().unwrap()))
        .collect();
    for event in [("ann@example.com", "app:create"), ("bob@example.com", "config-vars:update")] {
        assert!(told.contains(&event), "{event:?} is not in {told:?}");
    }
    hokku.ok(&["users:remove", "ann@example.com"]);
    assert_ne!(with(&ann, &["auth:whoami"]).status, 0);
}

#[test]
fn a_password_logs_in_on_a_terminal_and_keys_are_kept() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let made = hokku.json(&["users:create", "ann@example.com", "--json"]);
    let mut terminal = Terminal::open(100, 30);
    let mut command = heroku.on_terminal(&["login", "-i"]);
    command.env_remove("HEROKU_API_KEY");
    let mut child = terminal.attach(command);
    terminal.wait_for("Email");
    terminal.type_keys("ann@example.com\r");
    terminal.wait_for("Password");
    terminal.type_keys(&format!("{}\r", made["password"].as_str().unwrap()));
    terminal.wait_for("Logged in as");
    assert!(child.wait().unwrap().success(), "{}", terminal.seen());
    let plainly = |args: &[&str]| Said::of(&heroku.command(args).env_remove("HEROKU_API_KEY").output().unwrap());
    assert_eq!(plainly(&["auth:whoami"]).out, "ann@example.com\n");
    plainly(&["create", "anns", "--no-remote"]).with("anns");
    assert_eq!(hokku.json(&["apps:info", "--json", "-a", "anns"])["app"]["owner"]["email"], "ann@example.com");

    let key = heroku.home().join("id.pub");
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG ann@laptop\n";
    fs::write(&key, line).unwrap();
    let added = plainly(&["keys:add", key.to_str().unwrap()]);
    assert_eq!(added.status, 0, "{added:?}");
    plainly(&["keys"]).with("ann@laptop");
    assert_ne!(plainly(&["keys:add", key.to_str().unwrap()]).status, 0, "it is known");
    assert_eq!(plainly(&["keys:remove", "ann@laptop"]).status, 0);
    plainly(&["keys"]).with("no SSH keys");
    // The log-in is a session; what was made by its token is none.
    let other = token_of_password(&hokku, "ann@example.com", made["password"].as_str().unwrap());
    let rows: serde_json::Value = serde_json::from_str(&plainly(&["sessions", "--json"]).out).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let second = rows.iter().find(|row| row["description"] == "hokku auth:login").unwrap()["id"].as_str().unwrap();
    plainly(&["sessions"]).with("Heroku CLI login from");
    assert_eq!(plainly(&["sessions:destroy", second]).status, 0);
    let ended = Said::of(&heroku.command(&["auth:whoami"]).env("HEROKU_API_KEY", &other).output().unwrap());
    assert_ne!(ended.status, 0, "{ended:?}");
    assert_ne!(plainly(&["sessions:destroy", second]).status, 0);
    assert_eq!(plainly(&["auth:logout"]).status, 0);
    assert_ne!(plainly(&["auth:whoami"]).status, 0);
}

#[test]
fn oauth_clients_are_registered_changed_and_removed() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    assert_eq!(heroku.ok(&["clients"]), "No OAuth clients.\n");
    let made = heroku.json(&["clients:create", "Amazing", "https://amazing.example.com/cb", "--json"]);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    // By our own command line it is the same.
    let kept = |what: &str| hokku.json(&["clients:info", id, "--json"])[what].as_str().unwrap().to_owned();
    assert_eq!((kept("name"), kept("secret")), ("Amazing".to_owned(), secret.to_owned()));
    heroku.done(&["clients:update", id, "--url", "http://localhost:3000/cb", "-n", "Better"]);
    assert_eq!((kept("name"), kept("redirect_uri")), ("Better".to_owned(), "http://localhost:3000/cb".to_owned()));
    let renewed = heroku.json(&["clients:rotate", id, "--json"]);
    assert_eq!(kept("secret"), renewed["secret"].as_str().unwrap());
    assert_ne!(renewed["secret"], secret);
    assert!(heroku.ok(&["clients:info", id, "-s"]).contains(&format!("HEROKU_OAUTH_SECRET={}", kept("secret"))));
    assert!(heroku.ok(&["clients"]).contains("Better"));
    assert!(hokku.ok(&["clients"]).contains("Better"));
    heroku.done(&["clients:destroy", id]);
    assert!(heroku.fails(&["clients:info", id]).contains("Couldn't find that client."));
    assert_eq!(hokku.json(&["clients", "--json"]), serde_json::json!([]));
}
