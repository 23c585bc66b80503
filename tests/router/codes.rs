//! Every error code: what the client sees and what the access line says.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Reply, Rig, app, brisk, dyno, dynos, raw, soon, until};
use hokku::domain::route::Target;
use hokku::router::Settings;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::Notify;

fn is_error_page(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status(), reply.header("x-hokku-error")), (status, Some(code)), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.whole && reply.body.contains(code), "{reply:?}");
}

/// `a.test` is routed to `target`: the page and the line are those of `code`.
async fn target_gives(target: Target, status: u16, code: &str, description: &str) {
    let mut rig = Rig::with(brisk()).await;
    rig.route(target).await;
    is_error_page(&rig.ask(GET).await, status, code);
    let line = rig.line().await;
    assert!(
        line.starts_with(&format!("at=error code={code} desc=\"{description}\" method=GET path=\"/\" host=a.test ")),
        "{line}"
    );
    assert!(line.ends_with(&format!(" dyno= connect= service= status={status} bytes= protocol=http")), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn h10_app_crashed() {
    target_gives(Target::Crashed, 503, "H10", "App crashed").await;
}

#[tokio::test]
async fn h14_no_web_dynos() {
    target_gives(Target::NoWeb, 503, "H14", "No web dynos running").await;
}

#[tokio::test]
async fn h20_boot_timeout() {
    target_gives(Target::Booting, 503, "H20", "App boot timeout").await;
}

#[tokio::test]
async fn h81_blank_app() {
    target_gives(Target::Blank, 502, "H81", "Blank app").await;
}

#[tokio::test]
async fn h99_a_table_that_contradicts_itself() {
    target_gives(Target::Dynos { dynos: Vec::new() }, 503, "H99", "Platform error").await;
    let mut rig = Rig::new().await;
    let mut table = rig.table(Target::Blank, false);
    table.apps.clear();
    rig.publish(table).await;
    is_error_page(&rig.ask(GET).await, 503, "H99");
    rig.end().await;
}

#[tokio::test]
async fn h80_maintenance() {
    let mut rig = Rig::new().await;
    let table = rig.table(dynos(&[app("one").await]), true);
    rig.publish(table).await;
    is_error_page(&rig.ask(GET).await, 503, "H80");
    let line = rig.line().await;
    assert!(line.starts_with("at=info code=H80 desc=\"Maintenance mode\" method=GET"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn an_unknown_host_is_no_apps_business() {
    let mut rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert_eq!((reply.status(), reply.header("x-hokku-error")), (404, Some("unknown-host")));
    assert!(reply.body.contains("No such app"));
    rig.ask(GET).await;
    assert!(rig.line().await.contains("status=200"), "the first line is that of the second request");
    rig.end().await;
}

#[tokio::test]
async fn a_request_waits_for_a_dyno_that_boots() {
    let mut rig = Rig::new().await;
    rig.route(Target::Booting).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::to(rig.address).await;
        client.say(GET).await;
        clients.push(client);
    }
    // One that gives up must not disturb the others.
    drop(clients.pop());
    assert!(rig.line().await.starts_with("sock=client at=warning code=H27"));
    rig.route(dynos(&[app("booted").await])).await;
    for mut client in clients {
        assert!(client.reply().await.body.starts_with("booted"));
    }
    rig.end().await;
}

#[tokio::test]
async fn held_requests_go_on_to_what_becomes_of_the_app() {
    let mut rig = Rig::new().await;
    rig.route(Target::Booting).await;
    let mut client = Client::to(rig.address).await;
    client.say(GET).await;
    rig.route(Target::Crashed).await;
    is_error_page(&client.reply().await, 503, "H10");
    rig.end().await;
}

#[tokio::test]
async fn h11_backlog_too_deep() {
    let (go, asked) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (release, count) = (Arc::clone(&go), Arc::clone(&asked));
    let address = dyno(move |mut connection| {
        let (release, count) = (Arc::clone(&release), Arc::clone(&count));
        async move {
            while connection.head().await.is_some() {
                count.fetch_add(1, SeqCst);
                release.notified().await;
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let mut rig = Rig::with(Settings { active_per_dyno: 1, backlog_per_dyno: 1, ..Settings::default() }).await;
    rig.route(dynos(&[address])).await;
    let mut first = Client::to(rig.address).await;
    first.say(GET).await;
    until("the first request arrives", || asked.load(SeqCst) == 1).await;
    let (mut one, mut other) = (Client::to(rig.address).await, Client::to(rig.address).await);
    one.say(GET).await;
    other.say(GET).await;
    // One of the two waits, the other is refused at once.
    let line = rig.line().await;
    assert!(line.starts_with("at=error code=H11 desc=\"Backlog too deep\""), "{line}");
    go.notify_one();
    assert_eq!(first.reply().await.body, "ok");
    go.notify_one();
    let mut statuses = [one.reply().await.status(), other.reply().await.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    rig.end().await;
}

#[tokio::test]
async fn h12_no_first_byte_in_time() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        assert!(connection.closed().await);
    })
    .await;
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[address])).await;
    is_error_page(&rig.ask(GET).await, 503, "H12");
    let line = rig.line().await;
    assert!(line.starts_with("at=error code=H12 desc=\"Request timeout\" method=GET"), "{line}");
    assert!(line.contains(" dyno=web.1 connect=") && line.ends_with("ms status=503 bytes=0 protocol=http"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn h12_counts_from_the_end_of_the_request() {
    let mut rig = Rig::with(Settings { idle: Duration::from_secs(20), ..brisk() }).await;
    rig.route(dynos(&[app("slow upload").await])).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(80)).await;
        client.say("x").await;
    }
    assert_eq!(client.reply().await.status(), 200);
    rig.end().await;
}

#[tokio::test]
async fn h13_closed_without_a_response() {
    let mut rig = Rig::serving(raw("").await).await;
    is_error_page(&rig.ask(GET).await, 503, "H13");
    assert!(rig.line().await.starts_with("at=error code=H13 desc=\"Connection closed without response\""));
    rig.end().await;
}

#[tokio::test]
async fn h15_a_response_that_stops_coming() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert!(connection.closed().await);
    })
    .await;
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[address])).await;
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.whole), (200, false));
    let line = rig.line().await;
    assert!(
        line.starts_with("at=error code=H15 desc=\"Idle connection\"") && line.contains("status=503 bytes=4"),
        "{line}"
    );
    rig.end().await;
}

#[tokio::test]
async fn h15_an_upload_that_the_dyno_does_not_take() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut rig = Rig::with(Settings { first_byte: Duration::from_secs(20), ..brisk() }).await;
    rig.route(dynos(&[address])).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n").await;
    let block = vec![b'x'; 1 << 20];
    let upload = async { while client.try_say(&block).await.is_ok() {} };
    tokio::select! {
        () = upload => {}
        line = rig.line() => assert!(line.starts_with("at=error code=H15"), "{line}"),
    }
    rig.end().await;
}

#[tokio::test]
async fn h17_a_response_that_is_none() {
    for answer in [
        "rubbish\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut rig = Rig::serving(raw(answer).await).await;
        is_error_page(&rig.ask(GET).await, 503, "H17");
        assert!(
            rig.line().await.starts_with("at=error code=H17 desc=\"Poorly formatted HTTP response\""),
            "{answer:?}"
        );
        rig.end().await;
    }
}

#[tokio::test]
async fn h18_a_response_that_breaks_off_is_not_made_to_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n",
    ] {
        let mut rig = Rig::serving(raw(answer).await).await;
        let reply = rig.ask(GET).await;
        assert_eq!((reply.status(), reply.body.as_str(), reply.whole), (200, "hello", false), "{answer:?}");
        let line = rig.line().await;
        assert!(line.starts_with("sock=backend at=error code=H18 desc=\"Server Request Interrupted\""), "{line}");
        rig.end().await;
    }
}

/// An address at which connections are neither accepted nor refused: its queue is full.
async fn black_hole() -> (SocketAddr, tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    (address, listener, queued)
}

/// An address at which nobody listens, and nobody will.
fn nobody() -> (SocketAddr, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    std::mem::forget(taken);
    (address, listener)
}

#[tokio::test]
async fn h19_a_connection_that_does_not_come_about() {
    let (address, _listener, _queued) = black_hole().await;
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[address])).await;
    is_error_page(&rig.ask(GET).await, 503, "H19");
    let line = rig.line().await;
    assert!(line.starts_with("at=error code=H19 desc=\"Backend connection timeout\""), "{line}");
    assert!(line.contains(" dyno=web.1 "), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn h21_a_connection_that_is_refused() {
    let (address, _keep) = nobody();
    let mut rig = Rig::serving(address).await;
    is_error_page(&rig.ask(GET).await, 503, "H21");
    assert!(rig.line().await.starts_with("at=error code=H21 desc=\"Backend connection refused\""));
    rig.end().await;
}

#[tokio::test]
async fn a_dyno_that_cannot_be_reached_is_passed_over() {
    let (dead, _keep) = nobody();
    let mut rig = Rig::serving(dead).await;
    rig.route(dynos(&[dead, app("alive").await])).await;
    for n in 0..20 {
        let reply = rig.ask(&format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi")).await;
        assert!(reply.body.starts_with("alive") && reply.body.ends_with("hi"), "{reply:?}");
        assert!(rig.line().await.contains(" dyno=web.2 "));
    }
    rig.end().await;
}

#[tokio::test]
async fn h26_an_expectation_that_nobody_knows() {
    let mut rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("GET / HTTP/1.1\r\nHost: a.test\r\nExpect: miracles\r\n\r\n").await;
    is_error_page(&reply, 417, "H26");
    let line = rig.line().await;
    assert!(line.starts_with("at=error code=H26 desc=\"Request Error\"") && line.contains("status=417"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn h27_a_client_that_goes_away() {
    let (arrived, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&arrived), Arc::clone(&gone));
    let address = dyno(move |mut connection| {
        let (arrived, gone) = signals.clone();
        async move {
            let Some(head) = connection.head().await else { return };
            if head.starts_with("GET /begun") {
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            }
            arrived.notify_one();
            assert!(connection.closed().await);
            gone.notify_one();
        }
    })
    .await;
    let mut rig = Rig::serving(address).await;
    // While it waits for a response, and in the middle of one.
    for path in ["/waiting", "/begun"] {
        let mut client = Client::to(rig.address).await;
        client.say(crate::rig::get(path)).await;
        soon(arrived.notified()).await;
        if path == "/begun" {
            client.through("half").await.unwrap();
        }
        drop(client);
        soon(gone.notified()).await;
        let line = rig.line().await;
        assert!(
            line.starts_with("sock=client at=warning code=H27 desc=\"Client Request Interrupted\" method=GET"),
            "{line}"
        );
        assert!(line.contains(" dyno=web.1 ") && line.contains("status=499"), "{line}");
    }
    // In the middle of its own body.
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n").await;
    soon(arrived.notified()).await;
    drop(client);
    soon(gone.notified()).await;
    let line = rig.line().await;
    assert!(line.starts_with("sock=client at=warning code=H27") && line.contains("method=POST"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn h28_a_client_that_stops_sending() {
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[app("one").await])).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(client.closed().await);
    let line = rig.line().await;
    assert!(line.starts_with("sock=client at=warning code=H28 desc=\"Client Connection Idle\""), "{line}");
    assert!(line.contains("status=499"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_waited_for_for_ever() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        connection.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        let block = vec![b'x'; 1 << 20];
        while connection.try_say(&block).await.is_ok() {}
    })
    .await;
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[address])).await;
    let mut client = Client::to(rig.address).await;
    client.say(GET).await;
    let line = rig.line().await;
    assert!(line.starts_with("sock=client at=warning code=H27"), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_the_end() {
    let rig = Rig::with(Settings { keep_alive: Duration::from_millis(200), ..Settings::default() }).await;
    let mut silent = Client::to(rig.address).await;
    let mut slow = Client::to(rig.address).await;
    slow.say("GET / HTTP/1.1\r\nHos").await;
    silent.rest().await;
    slow.rest().await;
    rig.end().await;
}
