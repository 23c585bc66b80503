//! One-off dynos with their client attached.

use crate::heroku::{Heroku, Said};
use crate::hokku::{Hokku, text, wait_for};
use crate::tty::Terminal;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

#[test]
fn run_attaches_and_passes_output_input_and_exit_status() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    hokku.ok(&["config:set", "A=from config", "-a", "shop"]);

    let said = heroku.done(&["run", "-a", "shop", "--", "echo \"$A, $DYNO, $B\"; pwd; tty"]);
    let name = said.err.split(|c: char| c.is_whitespace()).rfind(|word| word.starts_with("run.")).unwrap().to_owned();
    assert_eq!(said.out, format!("from config, {name}, \n/app\n/dev/pts/0\n"), "{said:?}");
    // What the program did is in the app's log, and nothing of it runs any more.
    hokku.wait_for_log("shop", &format!("heroku[{name}]: Process exited with status 0"));
    let env = heroku.ok(&["run", "-a", "shop", "-e", "B=b c;C=d", "-s", "standard-2x", "--", "echo $B $C"]);
    assert_eq!(env, "b c d\n");

    let failed = heroku.says(&["run", "-x", "-a", "shop", "--", "echo before; sh -c \"exit 7\""]);
    assert_eq!((failed.status, failed.out.as_str()), (7, "before\n"), "{failed:?}");
    assert_eq!(heroku.says(&["run", "-x", "--no-tty", "-a", "shop", "--", "false"]).status, 1);
    let fine = heroku.done(&["run", "-x", "-a", "shop", "--", "seq 20000"]);
    assert_eq!(fine.out.lines().count(), 20_000);
    assert_eq!(heroku.says(&["run", "-a", "shop", "--", "false"]).status, 0, "as Heroku's CLI has it");

    assert!(heroku.fails(&["run", "-a", "nobody", "--", "true"]).contains("Couldn't find that app."));
    heroku.done(&["create", "empty-one"]);
    assert!(heroku.fails(&["run", "-a", "empty-one", "--", "true"]).contains("code"));
}

#[test]
fn a_terminal_is_passed_through_with_its_size_and_keys() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let mut terminal = Terminal::open(97, 31);
    let mut child = terminal.attach(heroku.on_terminal(&["run", "-x", "-a", "shop", "--", "sh"]));
    // Whatever prompt there is, what is typed is answered.
    terminal.wait_for("up, run.");
    terminal.type_keys("stty size; echo is-$((40 + 2))\r");
    terminal.wait_for("is-42");
    assert!(terminal.seen().contains("31 97"), "{}", terminal.seen());
    terminal.type_keys("sh -c 'echo begun-$((1 + 1)); exec sleep 600'; echo after-$((1 + 2))\r");
    terminal.wait_for("begun-2");
    terminal.type_keys("\u{3}");
    // With it, the terminal forgets what was typed and not read yet.
    terminal.wait_for("^C");
    terminal.type_keys("echo still-$((2 + 2))\r");
    terminal.wait_for("still-4");
    assert!(!terminal.seen().contains("after-3"), "Ctrl-C ends the program, not the shell");
    terminal.type_keys("exit 9\r");
    assert_eq!(child.wait().unwrap().code(), Some(9), "{}", terminal.seen());
}

#[test]
fn input_reaches_the_program_and_a_client_that_leaves_ends_it() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    for flags in [&["--no-tty"][..], &[]] {
        let args = [&["run", "-a", "shop"], flags, &["--", "echo ready; cat >/tmp/in; wc -c </tmp/in"]].concat();
        let mut child =
            heroku.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The CLI loses what comes before the dyno answers.
        assert_eq!(lines.next().as_deref(), Some("ready"));
        stdin.write_all(b"twelve bytes\n").unwrap();
        drop(stdin);
        let rest: Vec<String> = lines.collect();
        // A terminal shows what is typed too.
        assert_eq!(rest.last().map(|line| line.trim()), Some("13"), "{flags:?} {rest:?}");
        assert!(child.wait().unwrap().success());
    }

    let mut child = heroku
        .command(&["run", "-a", "shop", "--", "echo ready; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let run = || hokku.dynos("shop").into_iter().find(|dyno| dyno["type"] == "run");
    assert_eq!(run().unwrap()["state"], "up");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the dyno to end", || run().is_none().then_some(()));

    // Whoever does not trust the instance's authority does not get in.
    let output = heroku.command(&["run", "-a", "shop", "--", "true"]).env_remove("NODE_EXTRA_CA_CERTS").output();
    let said = Said::of(&output.unwrap());
    assert_ne!(said.status, 0, "{said:?}");
    assert_eq!(run().unwrap()["state"], "starting", "nobody has come for it");
    assert!(text(&std::fs::read(heroku.variable("NODE_EXTRA_CA_CERTS")).unwrap()).contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_command_runs_inside_of_a_dyno_that_serves() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let inside = |command: &str| heroku.says(&["run:inside", "web.1", "-x", "-a", "shop", "--", command]);
    let said = inside("echo \"$DYNO, $PORT\"; tty; echo left > /tmp/note; sh -c \"exit 5\"");
    assert_eq!((said.status, said.out.as_str()), (5, "web.1, 5000\n/dev/pts/0\n"), "{said:?}");
    // It is the same dyno, and not one beside it: what was left is there, and its program can be told something.
    let named = |name: &str| hokku.dynos("shop").iter().filter(|dyno| dyno["name"] == name).count();
    assert_eq!((hokku.dynos("shop").len(), named("web.1")), (1, 1));
    assert_eq!(hokku.ok(&["run:inside", "web.1", "--no-tty", "-a", "shop", "cat", "/tmp/note"]), "left\n");
    let before = hokku.dynos("shop")[0]["id"].clone();
    hokku.ok(&["run:inside", "web.1", "--no-tty", "-a", "shop", "--", "pkill -TERM node"]);
    wait_for("another dyno", || {
        hokku.dynos("shop").iter().any(|dyno| dyno["id"] != before && dyno["state"] == "up").then_some(())
    });
    assert!(heroku.fails(&["run:inside", "web.9", "-a", "shop", "--", "true"]).contains("Couldn't find that dyno."));
    hokku.wait_for_log("shop", "heroku[web.1]: Starting process with command `cat /tmp/note` inside by user");
}
