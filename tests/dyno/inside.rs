//! Programs that are let into a dyno that runs.

use crate::stage::{PATIENCE, Stage, eventually};
use hokku::domain::dyno::DynoId;
use hokku::dyno::{Inside, Io, Ready, What};
use hokku::wire::attach::Frame;
use std::fs;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

fn let_in(stage: &Stage, id: DynoId, tty: Option<(u16, u16)>, command: &str) -> DuplexStream {
    let_in_until(stage, id, tty, command, CancellationToken::new())
}

fn let_in_until(
    stage: &Stage,
    id: DynoId,
    tty: Option<(u16, u16)>,
    command: &str,
    until: CancellationToken,
) -> DuplexStream {
    let (ours, theirs) = duplex(64 * 1024);
    let command = ["sh", "-c", command].map(str::to_owned).to_vec();
    let order = Inside { command, env: vec![("MORE".into(), "x".into())], tty };
    stage.dynos().inside(id, &order, Box::new(theirs), until);
    ours
}

/// All that is said until the end or until `text` was, and the last frame.
async fn said(stream: &mut DuplexStream, text: &str) -> (String, Option<Frame>) {
    let mut printed = String::new();
    loop {
        let frame = tokio::time::timeout(PATIENCE, Frame::read(stream)).await;
        match frame.unwrap_or_else(|_| panic!("only {printed:?}")).unwrap() {
            Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) => printed += &String::from_utf8(bytes).unwrap(),
            other => return (printed, other),
        }
        if !text.is_empty() && printed.contains(text) {
            return (printed, None);
        }
    }
}

/// A dyno whose own program says what it is, and stays.
async fn dyno(stage: &mut Stage, script: &str) -> DynoId {
    let mut body = stage.body(&["sh", "-c", script]);
    body.env.push(("SECRET".into(), "of the release".into()));
    let id = stage.launch(body, Ready::Started, Io::Log);
    stage.started(id).await;
    id
}

/// What a process is, by which two are to be alike: all of its status that says rights, its namespaces, groups, limits.
const WHAT: &str = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Umask|SigBlk|SigIgn):' /proc/self/status; \
    for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; \
    tail -n +2 /proc/self/limits; cat /proc/self/oom_score_adj; readlink /proc/self/cwd; readlink /proc/self/root; \
    ls /proc/self/fd | grep -v '^3$'; umask; hostname; echo $SECRET $HOME; echo end of it";

#[tokio::test]
async fn it_is_what_the_dynos_own_program_is() {
    let mut stage = Stage::new().await;
    let id = dyno(&mut stage, &format!("{WHAT}; sleep 1000")).await;
    stage.logged("end of it").await;
    let own: Vec<String> = stage.log().iter().map(|frame| frame.line.clone()).collect();
    let mut client = let_in(&stage, id, None, &format!("{WHAT}; echo $MORE; exit 7"));
    let (printed, last) = said(&mut client, "").await;
    assert_eq!(last, Some(Frame::Exit(7)), "{printed}");
    let inside: Vec<&str> = printed.lines().collect();
    assert_eq!(inside.last(), Some(&"x"));
    assert_eq!(inside[..inside.len() - 1], own);
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(own.iter().any(|own| own == line), "{line}: {own:?}");
    }
    // On the host it is in the dyno's group while it runs.
    let mut client = let_in(&stage, id, None, "echo up; exec sleep 1000");
    said(&mut client, "up").await;
    let sleeping = |stage: &Stage| {
        let commands = stage.processes(id).into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")));
        commands.filter_map(Result::ok).filter(|command| command.starts_with("sleep")).count()
    };
    eventually("it is in the group", || sleeping(&stage) == 2).await;
    // And goes with its client.
    drop(client);
    eventually("it has gone", || sleeping(&stage) == 1).await;
}

#[tokio::test]
async fn a_terminal_is_its_own_and_input_arrives() {
    let mut stage = Stage::new().await;
    let id = dyno(&mut stage, "sleep 1000").await;
    let mut client =
        let_in(&stage, id, Some((120, 40)), "tty; stty size; trap 'exit 9' INT; echo up; while :; do sleep 0.1; done");
    assert_eq!(said(&mut client, "up\r\n").await.0, "/dev/pts/0\r\n40 120\r\nup\r\n");
    client.write_all(&Frame::Stdin(vec![3]).encode()).await.unwrap();
    assert_eq!(said(&mut client, "").await.1, Some(Frame::Exit(9)));
    let mut client = let_in(&stage, id, None, "tr a-z A-Z");
    client.write_all(&Frame::Stdin(b"text".to_vec()).encode()).await.unwrap();
    client.write_all(&Frame::StdinEnd.encode()).await.unwrap();
    assert_eq!(said(&mut client, "").await, ("TEXT".to_owned(), Some(Frame::Exit(0))));
}

#[tokio::test]
async fn it_ends_with_the_dyno_and_nothing_comes_into_one_that_has_ended() {
    let mut stage = Stage::new().await;
    let id = dyno(&mut stage, "sleep 1000").await;
    let mut client = let_in(&stage, id, None, "echo up; exec sleep 1000");
    said(&mut client, "up").await;
    stage.dynos().kill(id);
    assert!(matches!(said(&mut client, "").await.1, Some(Frame::Error(_) | Frame::Exit(137))));
    stage.event(id, |what| matches!(what, What::Exited(_))).await;
    let mut client = let_in(&stage, id, None, "true");
    assert_eq!(said(&mut client, "").await.1, Some(Frame::Error("the dyno has ended".into())));
    eventually("nothing is left", || stage.traces().is_empty()).await;
}

#[tokio::test]
async fn one_that_takes_no_more_input_goes_when_it_is_to() {
    let mut stage = Stage::new().await;
    let id = dyno(&mut stage, "echo up; exec sleep 1000").await;
    stage.logged("up").await;
    let before = stage.processes(id).len();
    let until = CancellationToken::new();
    let mut client = let_in_until(&stage, id, None, "echo in; exec sleep 1000", until.clone());
    said(&mut client, "in").await;
    assert_eq!(stage.processes(id).len(), before + 1);
    let frame = Frame::Stdin(vec![b'x'; 16 * 1024]).encode();
    while tokio::time::timeout(Duration::from_secs(1), client.write_all(&frame)).await.is_ok() {}
    assert_eq!(stage.processes(id).len(), before + 1);
    until.cancel();
    eventually("it goes", || stage.processes(id).len() == before).await;
}

#[tokio::test]
async fn code_in_the_dyno_gets_nothing_of_what_comes_in() {
    let mut stage = Stage::new().await;
    // Looks at every process that is not its own as fast as it can: what it has open, its memory, its root and program.
    let hunter = "echo up; me=$$; while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$me) continue;; esac; \
        for f in $p/fd/*; do l=$(readlink $f 2>/dev/null) && case $l in pipe:*|/dev/*|/proc/*|/usr/*|/etc/*|/lib*) ;; *) echo \"caught $f $l\";; esac; done; \
        l=$(readlink $p/exe 2>/dev/null) && case $l in *hokku*) echo \"caught $p $l\";; esac; \
        l=$(readlink $p/root 2>/dev/null) && [ \"$l\" != / ] && echo \"caught $p $l\"; done; done";
    let id = dyno(&mut stage, hunter).await;
    stage.logged("up").await;
    for _ in 0..100 {
        let mut client = let_in(&stage, id, None, "exit 3");
        assert_eq!(said(&mut client, "").await.1, Some(Frame::Exit(3)));
    }
    let log: Vec<String> = stage.log().iter().map(|frame| frame.line.clone()).collect();
    assert_eq!(log, ["up"]);
}
