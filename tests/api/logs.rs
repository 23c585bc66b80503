//! Log sessions and the streams they open.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use bytes::Bytes;
use hokku::domain::log::{LogFrame, Source};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use serde_json::Value;

/// Fixed times, so that the snapshots have the whole lines.
fn write(server: &Server, app: hokku::domain::app::AppId, second: u32, source: Source, process: &str, line: &str) {
    let at = format!("2026-11-22T17:02:{second:02}.5Z").parse().unwrap();
    server.control.hub.write(app, LogFrame::platform(at, source, process, line));
}

async fn with_log() -> Server {
    let server = Server::with_app().await;
    let app = server.app().await;
    write(&server, app, 1, Source::App, "web.1", "one");
    write(&server, app, 2, Source::App, "web.2", "two");
    write(&server, app, 3, Source::Heroku, "router", "at=info");
    write(&server, app, 4, Source::App, "worker.1", "four");
    server
}

async fn open(server: &Server, session: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let session = server.quietly("POST", "/apps/shop/log-sessions", session).await;
    let path = session["logplex_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    reopen(server, path, headers).await
}

async fn reopen(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let request =
        headers.iter().fold(Server::request("GET", path), |request, (name, value)| request.header(*name, *value));
    server.send_tcp(request.body(Full::<Bytes>::default()).unwrap()).await
}

async fn text(response: Response<Incoming>) -> String {
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    format!("{kind}\n{}", String::from_utf8_lossy(&body))
}

#[tokio::test]
async fn sessions_show_the_lines_that_were_asked_for() {
    let mut server = with_log().await;
    for session in [
        r#"{"lines":4}"#,
        r#"{"lines":2,"tail":false}"#,
        r#"{"lines":4,"dyno":"web"}"#,
        r#"{"dyno_name":"web.2"}"#,
        r#"{"lines":4,"source":"heroku"}"#,
        r#"{"lines":9,"source":"app","type":"worker"}"#,
        r#"{"lines":0}"#,
    ] {
        let shown = text(open(&server, session, &[]).await).await;
        server.note(format_args!("{session} {shown}"));
    }
    server.note(text(open(&server, r#"{"lines":2}"#, &[("accept", "text/event-stream")]).await).await);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn sessions_are_made_and_guarded() {
    let mut server = with_log().await;
    let session = server.ask("POST", "/apps/shop/log-sessions", r#"{"lines":1,"tail":false}"#).await;
    for body in [r#"{"source":"db"}"#, r#"{"lines":-1}"#, r#"{"lines":"x"}"#, r#"{"tail":"yes"}"#] {
        server.ask("POST", "/apps/shop/log-sessions", body).await;
    }
    server.ask("POST", "/apps/nope/log-sessions", "{}").await;
    let path = session["logplex_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap().to_owned();
    assert_eq!(reopen(&server, &path, &[]).await.status(), 200);
    // Any other digit anywhere makes it another ticket.
    for at in [7, 20, 45, 70, path.len() - 1] {
        let mut changed = path.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(reopen(&server, std::str::from_utf8(&changed).unwrap(), &[]).await.status(), 404, "{at}");
    }
    for path in ["/logs/x", "/logs/%ff", "/logs/00000000-0000-0000-0000-000000000000-x-y"] {
        server.ask_tcp("GET", path, &[]).await;
    }
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_tail_goes_on_resumes_where_it_broke_and_ends_with_a_word() {
    let server = with_log().await;
    let app = server.app().await;
    let session: Value = server.quietly("POST", "/apps/shop/log-sessions", r#"{"lines":1,"tail":true}"#).await;
    let path = session["logplex_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    let events = [("accept", "text/event-stream")];
    let mut tail = reopen(&server, path, &events).await;
    assert!(
        read_until(&mut tail, "worker.1]: four")
            .await
            .starts_with("id: 1795366924500000000\ndata: 2026-11-22T17:02:04.5")
    );
    write(&server, app, 5, Source::App, "web.1", "five");
    assert!(read_until(&mut tail, "five").await.contains("id: 1795366925500000000\n"));
    drop(tail);

    write(&server, app, 6, Source::App, "web.1", "six");
    let resumed = [events[0], ("last-event-id", "1795366925500000000")];
    let mut tail = reopen(&server, path, &resumed).await;
    let seen = read_until(&mut tail, "six").await;
    assert!(!seen.contains("five"), "{seen}");

    server.control.closing.cancel();
    let rest = tail.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, ": the server is going down\nretry: 1000\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tails_are_held_and_stop_nobody() {
    // Both ends of each are this process's.
    hokku::sys::open_files::allow_many().unwrap();
    let server = with_log().await;
    let app = server.app().await;
    let session: Value = server.quietly("POST", "/apps/shop/log-sessions", r#"{"lines":1,"tail":true}"#).await;
    let path = session["logplex_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    let mut tails = Vec::new();
    for _ in 0..1000 {
        let tail = reopen(&server, path, &[]).await;
        assert_eq!(tail.status(), 200);
        tails.push(tail);
    }
    // Others are answered, and nobody misses a line.
    assert_eq!(server.quietly("GET", "/apps", "").await[0]["name"], "shop");
    write(&server, app, 5, Source::App, "web.1", "for everybody");
    for tail in &mut tails {
        read_until(tail, "for everybody").await;
    }
    // Gone with their clients: the next line finds nobody there.
    drop(tails);
    write(&server, app, 6, Source::App, "web.1", "for nobody");
    assert_eq!(server.quietly("GET", "/apps", "").await[0]["name"], "shop");
}

async fn read_until(response: &mut Response<Incoming>, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), response.body_mut().frame()).await;
        let bytes =
            frame.unwrap_or_else(|_| panic!("no {wanted:?} in {text:?}")).unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    text
}
