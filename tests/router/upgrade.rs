//! A router of another version is replaced, and no client notices.
#![forbid(unsafe_code)]

use crate::process::{is_running, load};
use crate::rig::{Client, GET, Rig, app, dyno, dynos, get, header, id, soon, until};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Notify;

const THIS: &str = env!("CARGO_BIN_EXE_hokku");
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Another build: the same program with a byte more at its end, which nobody reads.
fn another(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("hokku");
    std::fs::copy(THIS, &path).unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
    path
}

/// An application that echoes, streams until told, and speaks over `WebSockets`.
async fn application(go_on: Arc<Notify>) -> std::net::SocketAddr {
    dyno(move |mut connection| {
        let go_on = Arc::clone(&go_on);
        async move {
            while let Some(head) = connection.head().await {
                if header(&head, "upgrade").is_some() {
                    let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                    connection.say(accept).await;
                    while let Some(line) = connection.through("\n").await {
                        connection.say(line).await;
                    }
                    return;
                }
                if head.starts_with("GET /stream") {
                    connection.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbeg").await;
                    go_on.notified().await;
                    connection.say("ins").await;
                    continue;
                }
                let (body, _) = connection.body(&head).await;
                let answer = format!("{head}{body}");
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
                if connection.try_say(reply).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_router_of_another_version_is_replaced_and_no_connection_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::run_by(another(&directory)).await;
    let go_on = Arc::new(Notify::new());
    let address = application(Arc::clone(&go_on)).await;
    rig.route(dynos(&[address])).await;
    let old = rig.router().pid();
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..8).map(|number| tokio::spawn(load(number, rig.address, Arc::clone(&over), Arc::clone(&asked)))).collect();
    let mut idle = Client::to(rig.address).await;
    assert_eq!(idle.ask(&get("/idle")).await.status(), 200);
    let mut stream = Client::to(rig.address).await;
    stream.say(get("/stream")).await;
    assert!(stream.through("beg").await.is_some());
    let mut websocket = Client::to(rig.address).await;
    websocket.say(WEBSOCKET).await;
    assert!(websocket.head().await.unwrap().starts_with("HTTP/1.1 101 "));

    // An upgrade: the server goes, another comes. Its router takes over once there is a table for it.
    let mut lines = std::collections::HashSet::new();
    let mut count = |line: String| {
        assert!(line.contains(" status=200 ") || line.contains(" status=101 "), "{line}");
        let request = line.split(" request_id=").nth(1).unwrap()[..36].to_owned();
        assert!(lines.insert(request), "twice: {line}");
        lines.len()
    };
    rig.server_goes();
    while let Some(access) = soon(rig.lines.recv()).await {
        count(access.line);
    }
    rig.options.executable = THIS.into();
    rig.server_comes().await;
    assert_eq!(rig.router().pid(), old, "it serves on until its successor knows what to do");
    rig.route(dynos(&[address])).await;
    until("another router serves", || rig.router().pid() != old).await;
    let (new, before) = (rig.router().pid(), asked.load(SeqCst));
    until("more requests are answered", || asked.load(SeqCst) > before + 200).await;

    // What was under way is still under way, and what the dyno has there counts.
    websocket.say("still here\n").await;
    assert_eq!(websocket.through("\n").await.unwrap(), "still here\n");
    let reply = idle.ask(&get("/last")).await;
    assert_eq!(
        (reply.status(), reply.header("connection")),
        (200, Some("close")),
        "its next request is its last there"
    );
    assert!(idle.closed().await);
    let next = app("next").await;
    over.store(true, SeqCst);
    let mut total = 4;
    for client in clients {
        total += soon(client).await.unwrap();
    }
    rig.route(dynos(&[next])).await;
    assert!(rig.ask(GET).await.body.starts_with("next"));
    assert!(
        !rig.router().drained(id(address), Duration::from_millis(100)).await,
        "stream and WebSocket are at the old one"
    );
    assert!(is_running(old));
    go_on.notify_one();
    assert!(stream.through("ins").await.is_some(), "the stream is whole");
    drop((stream, websocket));
    assert!(rig.router().drained(id(address), Duration::from_secs(20)).await);
    until("the old one has ended by itself", || !is_running(old)).await;
    let retired = rig.instance.run.join(format!("retired-{old}.sock"));
    until("nothing is left of it", || !retired.exists()).await;
    assert_eq!(rig.router().pid(), new);
    while count(rig.line().await) <= total {}
    rig.end().await;
}

#[tokio::test]
async fn the_same_build_at_another_place_is_no_other_version() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    std::fs::copy(THIS, &copy).unwrap();
    let mut rig = Rig::run_by(copy).await;
    let address = app("one").await;
    rig.route(dynos(&[address])).await;
    let pid = rig.router().pid();
    rig.server_goes();
    rig.options.executable = THIS.into();
    rig.server_comes().await;
    for _ in 0..3 {
        rig.route(dynos(&[address])).await;
    }
    assert_eq!(rig.router().pid(), pid);
    rig.end().await;
}

#[tokio::test]
async fn the_next_server_goes_on_with_a_router_that_is_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::run_by(another(&directory)).await;
    let address = application(Arc::default()).await;
    rig.route(dynos(&[address])).await;
    let old = rig.router().pid();
    let mut websocket = Client::to(rig.address).await;
    websocket.say(WEBSOCKET).await;
    assert!(websocket.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    rig.server_goes();
    rig.options.executable = THIS.into();
    rig.server_comes().await;
    rig.route(dynos(&[address])).await;
    until("another router serves", || rig.router().pid() != old).await;
    for _ in 0..2 {
        rig.server_goes();
        rig.server_comes().await;
        rig.route(dynos(&[address])).await;
        assert!(!rig.router().drained(id(address), Duration::from_millis(100)).await, "asked of both");
        websocket.say("hello\n").await;
        assert_eq!(websocket.through("\n").await.unwrap(), "hello\n");
    }
    drop(websocket);
    assert!(rig.router().drained(id(address), Duration::from_secs(20)).await);
    until("the old one has ended", || !is_running(old)).await;
    let line = rig.line().await;
    assert!(line.contains("path=\"/ws\"") && line.contains(" status=101 "), "its line is not lost: {line}");
    rig.end().await;
}

#[tokio::test]
async fn a_router_that_is_to_end_does_so_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::run_by(another(&directory)).await;
    let address = application(Arc::default()).await;
    rig.route(dynos(&[address])).await;
    let old = rig.router().pid();
    let mut websocket = Client::to(rig.address).await;
    websocket.say(WEBSOCKET).await;
    assert!(websocket.head().await.is_some());
    rig.server_goes();
    (rig.options.executable, rig.options.retire) = (THIS.into(), Duration::from_secs(1));
    rig.server_comes().await;
    rig.route(dynos(&[address])).await;
    until("another router serves", || rig.router().pid() != old).await;
    assert!(websocket.closed().await, "cut off");
    until("the old one has ended", || !is_running(old)).await;
    assert!(rig.ask(GET).await.body.starts_with("GET / "));
    rig.end().await;
}

#[tokio::test]
async fn whoever_waits_in_the_queues_is_served_when_only_a_router_that_is_to_end_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::run_by(another(&directory)).await;
    let address = application(Arc::default()).await;
    rig.route(dynos(&[address])).await;
    let old = rig.router().pid();
    let mut websocket = Client::to(rig.address).await;
    websocket.say(WEBSOCKET).await;
    assert!(websocket.head().await.is_some());
    rig.server_goes();
    rig.options.executable = THIS.into();
    rig.server_comes().await;
    rig.route(dynos(&[address])).await;
    until("another router serves", || rig.router().pid() != old).await;
    let new = rig.router().pid();
    rig.server_goes();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(new), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("it is gone", || !is_running(new)).await;
    let mut waiting = Client::to(rig.address).await;
    waiting.say(GET).await;
    rig.server_comes().await;
    assert_eq!(waiting.reply().await.status(), 200);
    websocket.say("hello\n").await;
    assert_eq!(websocket.through("\n").await.unwrap(), "hello\n");
    drop(websocket);
    rig.end().await;
}
