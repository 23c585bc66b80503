//! One-off dynos.

use crate::hokku::{Hokku, text};
use crate::loopback_resolver::{ADDRESS, NAME, on_a_host_with_a_loopback_resolver};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn run_passes_output_input_and_exit_status() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("oneoff");
    let output = hokku.cli(&["run", "-x", "-a", "oneoff", "--", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("out"));
    assert!(text(&output.stderr).contains("err"));
    let mut child = hokku
        .command(&["run", "-x", "-a", "oneoff", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'x'; 300_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "300000");
    assert!(hokku.ok(&["run", "-a", "oneoff", "--", "env"]).contains("DYNO=run."));
    assert!(!hokku.ok(&["run", "-a", "oneoff", "--", "env"]).contains("PORT="), "only web has a port");
    assert_eq!(hokku.ok(&["run", "-a", "oneoff", "-e", "A=b c", "--", "echo $A"]).trim(), "b c");
}

#[test]
fn input_that_is_never_read_costs_no_output() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("oneoff");
    for _ in 0..10 {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let output = hokku
            .command(&["run", "-x", "-a", "oneoff", "--", "seq 3000; exit 3"])
            .stdin(yes.stdout.take().unwrap())
            .output()
            .unwrap();
        yes.wait().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).lines().count(), 3000);
    }
}

#[test]
fn a_detached_run_writes_to_the_log() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("detached");
    hokku.ok(&["run:detached", "-a", "detached", "--", "echo far away"]);
    let log = hokku.wait_for_log("detached", "]: far away");
    assert!(log.lines().any(|line| line.contains("app[run.") && line.contains("far away")), "{log}");
    hokku.wait_for_log("detached", "State changed from up to complete");
}

#[test]
fn running_needs_code_and_a_known_app() {
    let hokku = Hokku::start();
    hokku.ok(&["create", "empty-app"]);
    assert!(hokku.fails(&["run", "-a", "empty-app", "--", "true"]).contains("code"));
    assert!(hokku.fails(&["run", "-a", "nobody", "--", "true"]).contains("Couldn't find that app"));
}

#[test]
fn names_are_resolved_where_the_hosts_name_server_is_a_loopback_one() {
    on_a_host_with_a_loopback_resolver(|_| {
        let mut hokku = Hokku::start();
        let _repository = hokku.serving("names");
        let ask = format!("getent ahostsv4 {NAME} | head -1");
        let address = ADDRESS.to_string();
        let found = |hokku: &Hokku| hokku.ok(&["run", "-a", "names", "--", &ask]).starts_with(&address);
        assert!(found(&hokku));
        // Another server, the same launcher.
        hokku.kill_server();
        hokku.start_server();
        assert!(found(&hokku));
    });
}
