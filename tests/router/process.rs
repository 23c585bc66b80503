//! The process: its rights, its life beyond the server's, its replacement, and tables that change under load.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Rig, app, dyno, dynos, get, id, soon, until};
use hokku::router::{Options, Router, RouterError, Settings};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn the_process_has_no_rights_and_a_session_of_its_own() {
    let rig = Rig::new().await;
    let pid = rig.router().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let uid = rig.instance.helper_uid().to_string();
    assert_eq!(field("Uid"), vec![uid.clone(); 4]);
    assert_eq!(field("Gid"), vec![uid; 4]);
    assert_eq!(field("Groups"), Vec::<String>::new());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    let memory = std::fs::metadata(format!("/proc/{pid}/mem")).unwrap();
    assert_eq!(memory.uid(), 0, "what it holds is not for others of its user");
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environment.is_empty(), "nothing of the server's environment");
    rig.end().await;
}

#[tokio::test]
async fn the_control_socket_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::new().await;
    rig.route(dynos(&[app("one").await])).await;
    for file in ["router.sock", "routes.json"] {
        let mode = std::fs::metadata(rig.instance.run.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_new_server_adopts_the_running_router_with_its_requests_and_lines() {
    let finish = Arc::new(Notify::new());
    let go = Arc::clone(&finish);
    let address = dyno(move |mut connection| {
        let go = Arc::clone(&go);
        async move {
            while let Some(head) = connection.head().await {
                if head.starts_with("GET /slow") {
                    go.notified().await;
                }
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let mut rig = Rig::serving(address).await;
    let pid = rig.router().pid();
    let mut slow = Client::to(rig.address).await;
    slow.say(get("/slow")).await;
    rig.ask(&get("/before")).await;
    assert!(rig.line().await.contains("/before"));

    rig.server_goes();
    for n in 0..5 {
        assert_eq!(rig.ask(&get(&format!("/alone/{n}"))).await.body, "ok");
    }
    rig.server_comes().await;
    assert_eq!(rig.router().pid(), pid);
    let mut lines = Vec::new();
    for _ in 0..5 {
        lines.push(rig.line().await);
    }
    for n in 0..5 {
        let path = format!("path=\"/alone/{n}\"");
        assert_eq!(lines.iter().filter(|line| line.contains(&path)).count(), 1, "{path}: {lines:?}");
    }
    // The counts are the router's: it still knows of the request that began before.
    rig.route(dynos(&[app("new").await])).await;
    assert!(!rig.router().drained(id(address), Duration::from_millis(50)).await);
    finish.notify_one();
    assert_eq!(slow.reply().await.body, "ok");
    assert!(rig.router().drained(id(address), Duration::from_secs(20)).await);
    assert!(rig.line().await.contains("/slow"));
    assert!(rig.ask(GET).await.body.starts_with("new"));
    rig.end().await;
}

#[tokio::test]
async fn lines_that_find_no_room_are_counted_and_said() {
    let mut rig = Rig::with(Settings { unsent: 4000, ..Settings::default() }).await;
    rig.route(dynos(&[app("one").await])).await;
    rig.server_goes();
    let mut client = Client::to(rig.address).await;
    for n in 0..100 {
        client.ask(&get(&format!("/{n}"))).await;
    }
    // The lines are handed over in batches; the next server must find the last of them.
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.server_comes().await;
    let (mut kept, mut dropped) = (0, 0);
    while kept + dropped < 100 {
        let line = rig.line().await;
        match line.strip_prefix("at=warning desc=\"Access lines dropped\" count=") {
            Some(rest) => dropped += rest.split(' ').next().unwrap().parse::<usize>().unwrap(),
            None => kept += 1,
        }
    }
    assert_eq!(kept + dropped, 100);
    assert!(kept > 0 && dropped > 0, "{kept} kept, {dropped} dropped");
    rig.end().await;
}

#[tokio::test]
async fn a_router_that_is_killed_is_replaced_on_the_same_sockets() {
    let mut rig = Rig::serving(app("one").await).await;
    let pid = rig.router().pid();
    kill(pid);
    // Connections wait in the sockets' queues, which are still there: nothing is refused.
    for _ in 0..20 {
        let reply = rig.ask(GET).await;
        assert!(reply.body.starts_with("one"), "the new one knows the last table: {reply:?}");
    }
    assert_ne!(rig.router().pid(), pid);
    rig.route(dynos(&[app("two").await])).await;
    assert!(rig.ask(GET).await.body.starts_with("two"));
    rig.end().await;
}

#[tokio::test]
async fn a_router_that_died_with_its_server_is_started_anew_at_the_same_address() {
    let mut rig = Rig::serving(app("one").await).await;
    let pid = rig.router().pid();
    rig.server_goes();
    kill(pid);
    until("the old one is gone", || !is_running(pid)).await;
    rig.server_comes().await;
    assert_ne!(rig.router().pid(), pid);
    assert!(rig.ask(GET).await.body.starts_with("one"), "by the table it left");
    rig.end().await;
}

pub(crate) fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_stopped_router_stays_stopped_and_leaves_nothing() {
    let rig = Rig::serving(app("one").await).await;
    let pid = rig.router().pid();
    Router::stop(&rig.instance).await.unwrap();
    assert!(!is_running(pid));
    assert_eq!(std::fs::read_dir(&rig.instance.run).unwrap().count(), 0);
    let refused = || std::net::TcpStream::connect(rig.address).is_err();
    until("the server gives up its copies of the sockets", refused).await;
    Router::stop(&rig.instance).await.unwrap();
}

#[tokio::test]
async fn a_port_that_another_instance_uses_is_not_shared() {
    let rig = Rig::new().await;
    let other = tempfile::tempdir().unwrap();
    let mut instance = rig.instance.clone();
    instance.run = other.path().join("run");
    let options = Options { executable: env!("CARGO_BIN_EXE_hokku").into(), ..Options::default() };
    let (access, _lines) = mpsc::unbounded_channel();
    let error = Router::start_with(&instance, rig.address, options, access).await.unwrap_err();
    assert!(matches!(error, RouterError::Listen { address, .. } if address == rig.address), "{error}");
    assert_eq!(error.to_string(), format!("cannot listen on {}", rig.address));
    rig.end().await;
}

#[tokio::test]
async fn a_server_that_wants_another_address_gets_a_router_there() {
    let mut rig = Rig::serving(app("one").await).await;
    let (pid, before) = (rig.router().pid(), rig.address);
    rig.server_goes();
    let free = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    rig.address = free;
    rig.server_comes().await;
    assert!(!is_running(pid));
    assert!(std::net::TcpStream::connect(before).is_err());
    assert!(rig.ask(GET).await.body.starts_with("one"));
    rig.end().await;
}

#[tokio::test]
async fn a_binary_that_is_no_router_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut instance = hokku::domain::instance::Instance::new("x".parse().unwrap(), directory.path().into(), 30);
    instance.run = directory.path().join("run");
    for (executable, text) in [("/bin/true", "the router does not answer"), ("/nowhere", "cannot start the router")] {
        let options = Options { executable: Path::new(executable).into(), ..Options::default() };
        let (access, _lines) = mpsc::unbounded_channel();
        let error = Router::start_with(&instance, ([127, 0, 0, 1], 0).into(), options, access).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn no_request_fails_while_dynos_are_replaced_under_load() {
    const CLIENTS: usize = 16;
    let mut serving = mortal().await;
    let mut rig = Rig::serving(serving.address).await;
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(load(number, rig.address, Arc::clone(&over), Arc::clone(&asked))))
        .collect();
    for _ in 0..8 {
        let before = asked.load(SeqCst);
        let next = mortal().await;
        rig.route(dynos(&[next.address])).await;
        let old = std::mem::replace(&mut serving, next);
        assert!(rig.router().drained(id(old.address), Duration::from_secs(20)).await);
        old.dies().await;
        until("more requests are answered", || asked.load(SeqCst) > before + 100).await;
    }
    over.store(true, SeqCst);
    let mut total = 0;
    for client in clients {
        total += soon(client).await.unwrap();
    }
    for _ in 0..total {
        let line = rig.line().await;
        assert!(line.starts_with("at=info ") && line.contains("status=200"), "{line}");
    }
    assert!(rig.lines.try_recv().is_err(), "the client's count and the access lines agree");
    rig.end().await;
}

#[tokio::test]
async fn servers_that_come_and_go_cost_no_request_and_no_line() {
    let mut rig = Rig::serving(app("one").await).await;
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..8).map(|number| tokio::spawn(load(number, rig.address, Arc::clone(&over), Arc::clone(&asked)))).collect();
    let request = |line: &str| line.split(" request_id=").nth(1).unwrap()[..36].to_owned();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let before = asked.load(SeqCst);
        until("more requests are answered", || asked.load(SeqCst) > before + 100).await;
        rig.server_goes();
        while let Some(access) = soon(rig.lines.recv()).await {
            assert!(seen.insert(request(&access.line)), "twice: {}", access.line);
        }
        let before = asked.load(SeqCst);
        until("requests are answered without a server", || asked.load(SeqCst) > before + 100).await;
        rig.server_comes().await;
    }
    over.store(true, SeqCst);
    let mut total = 0;
    for client in clients {
        total += soon(client).await.unwrap();
    }
    while seen.len() < total {
        let line = rig.line().await;
        assert!(seen.insert(request(&line)), "twice: {line}");
    }
    rig.end().await;
}

/// Keeps asking until told, on kept and on new connections, with and without bodies; every answer must be right.
pub(crate) async fn load(
    number: usize,
    address: std::net::SocketAddr,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> usize {
    let mut client = Client::to(address).await;
    let mut count = 0;
    while !over.load(SeqCst) {
        if number.is_multiple_of(2) {
            client = Client::to(address).await;
        }
        let body = format!("{number}/{count}");
        let length = body.len();
        let reply = if count % 3 == 0 {
            client.ask(&get(&format!("/{body}"))).await
        } else {
            client.ask(&format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}")).await
        };
        assert!(reply.status() == 200 && reply.body.contains(&body), "{number}/{count}: {reply:?}");
        if reply.header("connection") == Some("close") {
            client = Client::to(address).await;
        }
        count += 1;
        asked.fetch_add(1, SeqCst);
    }
    count
}

/// An application that ends for good.
struct Mortal {
    address: std::net::SocketAddr,
    end: mpsc::Sender<()>,
}

impl Mortal {
    /// No connection is accepted any more and all there were are cut.
    async fn dies(self) {
        drop(self.end);
        let dead = || std::net::TcpStream::connect(self.address).is_err();
        until("it listens no more", dead).await;
    }
}

async fn mortal() -> Mortal {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, mut ended) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                _ = ended.recv() => return,
                accepted = listener.accept() => {
                    connections.spawn(echo(Client::of(accepted.unwrap().0)));
                }
            }
        }
    });
    Mortal { address, end }
}

async fn echo(mut connection: Client) {
    while let Some(head) = connection.head().await {
        let (body, _) = connection.body(&head).await;
        let answer = format!("{head}{body}");
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        if connection.try_say(reply).await.is_err() {
            return;
        }
    }
}
