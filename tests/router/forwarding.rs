//! Ordinary traffic, both ways, as it comes.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Rig, app, brisk, dyno, dynos, get, header, id, raw, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An application that echoes lines over a WebSocket's connection until one says `bye`.
async fn echo() -> std::net::SocketAddr {
    dyno(|mut connection| async move {
        let Some(head) = connection.head().await else { return };
        assert_eq!(header(&head, "upgrade"), Some("websocket"), "{head}");
        assert_eq!(header(&head, "connection"), Some("Upgrade"));
        let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello\n";
        connection.say(accept).await;
        while let Some(line) = connection.through("\n").await {
            connection.say(&line).await;
            if line == "bye\n" {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_arrives_with_what_the_router_knows_about_it() {
    let mut rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: 01234567-89ab-cdef\r\n\r\n").await;
    assert_eq!((reply.status(), reply.header("via")), (200, Some("1.1 hokku")));
    let seen = reply.body.strip_prefix("one\n").unwrap();
    assert!(seen.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{seen}");
    let port = rig.address.port().to_string();
    for (name, value) in [
        ("host", "a.test"),
        ("via", "1.1 hokku"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", port.as_str()),
    ] {
        assert_eq!(header(seen, name), Some(value), "{name}");
    }
    let request_id = header(seen, "x-request-id").unwrap();
    assert!(request_id.parse::<uuid::Uuid>().is_ok(), "too short an id is replaced: {request_id}");
    assert!(header(seen, "x-request-start").unwrap().parse::<u64>().unwrap() > 1_600_000_000_000);
    let line = rig.line().await;
    let bytes = reply.body.len();
    let begin = format!(
        "at=info method=GET path=\"/x?y=1\" host=a.test request_id={request_id} fwd=\"127.0.0.1\" dyno=web.1 connect="
    );
    assert!(line.starts_with(&begin), "{line}");
    assert!(
        line.contains("ms service=") && line.ends_with(&format!("ms status=200 bytes={bytes} protocol=http")),
        "{line}"
    );
    rig.end().await;
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let count = Arc::new(AtomicUsize::new(0));
    let connections = Arc::clone(&count);
    let address = dyno(move |mut connection| {
        connections.fetch_add(1, SeqCst);
        async move {
            while connection.head().await.is_some() {
                connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    for _ in 0..50 {
        assert_eq!(client.ask(GET).await.body, "ok");
    }
    assert_eq!(count.load(SeqCst), 1);
    rig.end().await;
}

#[tokio::test]
async fn a_response_flows_as_it_is_made() {
    let next = Arc::new(Notify::new());
    let go = Arc::clone(&next);
    let address = dyno(move |mut connection| {
        let go = Arc::clone(&go);
        async move {
            connection.head().await;
            connection.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for chunk in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                go.notified().await;
                connection.say(chunk).await;
            }
        }
    })
    .await;
    let mut rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.say(GET).await;
    assert!(client.head().await.unwrap().contains("chunked"), "the head comes before the body");
    next.notify_one();
    client.through("one").await.unwrap();
    next.notify_one();
    client.through("two").await.unwrap();
    next.notify_one();
    client.through("0\r\n\r\n").await.unwrap();
    assert!(rig.line().await.contains("status=200 bytes=6"));
    rig.end().await;
}

#[tokio::test]
async fn a_request_body_flows_as_it_is_sent() {
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let address = dyno(move |mut connection| {
        let tell = Arc::clone(&tell);
        async move {
            let head = connection.head().await.unwrap();
            assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
            for part in ["one", "two"] {
                connection.through(part).await.unwrap();
                tell.notify_one();
            }
            connection.through("0\r\n\r\n").await.unwrap();
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for chunk in ["3\r\none\r\n", "3\r\ntwo\r\n"] {
        client.say(chunk).await;
        soon(arrived.notified()).await;
    }
    client.say("0\r\n\r\n").await;
    assert_eq!(client.reply().await.body, "ok");
    rig.end().await;
}

#[tokio::test]
async fn bodies_arrive_unchanged_at_any_size() {
    let rig = Rig::serving(app("one").await).await;
    for size in [0, 1, 100_000, 3_000_000] {
        let body: String = (0..size).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
        let mut client = Client::to(rig.address).await;
        let request = format!("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n{body}");
        let reply = client.ask(&request).await;
        assert!(reply.whole && reply.body.ends_with(&format!("\r\n\r\n{body}")), "{size}");
    }
    rig.end().await;
}

#[tokio::test]
async fn the_router_itself_says_continue() {
    let address = app("one").await;
    let rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    client.say("hello").await;
    let reply = client.reply().await;
    assert!(reply.body.ends_with("hello") && !reply.body.contains("expect"), "{reply:?}");
    rig.end().await;
}

#[tokio::test]
async fn an_upload_ends_when_the_dyno_has_refused_it() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        connection.say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
        connection.rest().await;
    })
    .await;
    let mut rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.say("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n").await;
    let (mut read, mut write) = client.stream.into_split();
    let upload = tokio::spawn(async move {
        let block = vec![b'x'; 1 << 16];
        while tokio::io::AsyncWriteExt::write_all(&mut write, &block).await.is_ok() {}
    });
    let mut answer = Vec::new();
    while !answer.ends_with(b"no!") {
        let size = soon(tokio::io::AsyncReadExt::read_buf(&mut read, &mut answer)).await.unwrap();
        assert!(size > 0, "{}", String::from_utf8_lossy(&answer));
    }
    soon(upload).await.unwrap();
    assert!(rig.line().await.contains("status=413 bytes=3"));
    rig.end().await;
}

#[tokio::test]
async fn responses_without_a_body_keep_their_heads_and_the_connection() {
    let mut rig = Rig::serving(
        dyno(|mut connection| async move {
            while let Some(head) = connection.head().await {
                connection
                    .say(match head.split(' ').nth(1).unwrap() {
                        "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
                        "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                        _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                    })
                    .await;
            }
        })
        .await,
    )
    .await;
    let mut client = Client::to(rig.address).await;
    for _ in 0..3 {
        for (request, length) in [
            ("HEAD /head HTTP/1.1", Some("7")),
            ("HEAD /chunked HTTP/1.1", None),
            ("GET /204 HTTP/1.1", None),
            ("GET /304 HTTP/1.1", None),
        ] {
            client.say(format!("{request}\r\nHost: a.test\r\n\r\n")).await;
            let head = client.head().await.unwrap();
            assert_eq!(header(&head, "content-length"), length, "{request}: {head}");
            assert!(rig.line().await.contains(" bytes=0 "), "{request}");
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn an_old_client_gets_what_it_understands() {
    let address = raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.say("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    let answer = client.rest().await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 ") && !head.contains("chunked"), "{head}");
    assert_eq!(body, "hello");
    rig.end().await;
    let rig = Rig::serving(app("one").await).await;
    let mut client = Client::to(rig.address).await;
    for _ in 0..2 {
        let reply = client.ask("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(
            reply.body.starts_with("one\nGET / HTTP/1.1\r\n") && reply.body.contains("via: 1.0 hokku"),
            "{reply:?}"
        );
    }
    rig.end().await;
}

#[tokio::test]
async fn an_app_that_closes_its_idle_connections_fails_no_request() {
    let address = dyno(|mut connection| async move {
        // Says nothing of closing, and closes.
        if connection.head().await.is_some() {
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let mut rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    for n in 0..200 {
        let reply = client.ask(GET).await;
        assert_eq!((reply.status(), reply.body.as_str()), (200, "ok"), "request {n}");
    }
    for _ in 0..200 {
        assert!(rig.line().await.contains("status=200"));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_request_that_may_have_been_worked_on_is_not_sent_twice() {
    let count = Arc::new(AtomicUsize::new(0));
    let posts = Arc::clone(&count);
    let address = dyno(move |mut connection| {
        let posts = Arc::clone(&posts);
        async move {
            // The first request keeps the connection; the second is read, and the connection closed.
            connection.head().await;
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            if connection.head().await.is_some_and(|head| head.starts_with("POST")) {
                posts.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let rig = Rig::serving(address).await;
    let mut client = Client::to(rig.address).await;
    client.ask(GET).await;
    let reply = client.ask("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((reply.header("x-hokku-error"), count.load(SeqCst)), (Some("H13"), 1));
    let reply = client.ask(GET).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(client.ask(GET).await.status(), 200, "a GET is sent again");
    rig.end().await;
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_until_either_side_ends() {
    let mut rig = Rig::serving(echo().await).await;
    let mut client = Client::to(rig.address).await;
    client.say(WEBSOCKET).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((header(&head, "upgrade"), header(&head, "connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(client.through("\n").await.unwrap(), "hello\n");
    for line in ["one\n", "two\n", "bye\n"] {
        client.say(line).await;
        assert_eq!(client.through("\n").await.unwrap(), line);
    }
    assert!(client.closed().await);
    let line = rig.line().await;
    assert!(line.starts_with("at=info method=GET path=\"/ws\"") && line.contains("status=101 bytes=18 "), "{line}");
    let mut client = Client::to(rig.address).await;
    client.say(WEBSOCKET).await;
    client.through("hello\n").await.unwrap();
    drop(client);
    assert!(rig.line().await.contains("status=101 bytes=6 "));
    rig.end().await;
}

#[tokio::test]
async fn a_websocket_that_is_refused_is_an_ordinary_response() {
    let rig = Rig::serving(app("one").await).await;
    let mut client = Client::to(rig.address).await;
    client.say(WEBSOCKET).await;
    assert_eq!(client.reply().await.status(), 200);
    assert_eq!(client.ask(GET).await.status(), 200);
    rig.end().await;
}

#[tokio::test]
async fn a_silent_websocket_is_closed_in_the_end() {
    let mut rig = Rig::with(brisk()).await;
    rig.route(dynos(&[echo().await])).await;
    let mut client = Client::to(rig.address).await;
    client.say(WEBSOCKET).await;
    client.through("hello\n").await.unwrap();
    // Traffic in one direction keeps it open for longer than the limit.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.say("x").await;
    }
    assert!(client.closed().await);
    assert!(rig.line().await.starts_with("at=error code=H15 "));
    rig.end().await;
}

#[tokio::test]
async fn what_a_dyno_has_begun_it_may_finish_after_it_left_the_table() {
    let old = echo().await;
    let mut rig = Rig::serving(old).await;
    let mut client = Client::to(rig.address).await;
    client.say(WEBSOCKET).await;
    client.through("hello\n").await.unwrap();
    rig.route(dynos(&[app("new").await])).await;
    assert!(rig.ask(GET).await.body.starts_with("new"));
    assert!(!rig.router().drained(id(old), Duration::from_millis(50)).await);
    client.say("still here\n").await;
    assert_eq!(client.through("\n").await.unwrap(), "still here\n");
    client.say("bye\n").await;
    assert!(rig.router().drained(id(old), Duration::from_secs(20)).await);
    rig.end().await;
}

#[tokio::test]
async fn a_dyno_that_left_the_table_loses_its_idle_connections() {
    let (closed, tell) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signal = Arc::clone(&closed);
    let address = dyno(move |mut connection| {
        let signal = Arc::clone(&signal);
        async move {
            connection.head().await;
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            assert!(connection.closed().await);
            signal.notify_one();
        }
    })
    .await;
    drop(tell);
    let mut rig = Rig::serving(address).await;
    rig.ask(GET).await;
    rig.route(hokku::domain::route::Target::Crashed).await;
    soon(closed.notified()).await;
    rig.end().await;
}

#[tokio::test]
async fn requests_are_spread_over_the_dynos() {
    let mut rig = Rig::serving(app("one").await).await;
    rig.route(dynos(&[app("one").await, app("two").await])).await;
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    let mut client = Client::to(rig.address).await;
    for n in 0..200 {
        let reply = client.ask(&get(&format!("/{n}"))).await;
        *seen.entry(reply.body[..3].to_owned()).or_default() += 1;
    }
    assert!(seen.len() == 2 && seen.values().all(|count| *count > 40), "{seen:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_question_about_the_server_as_a_whole_reaches_the_app() {
    let rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(reply.body.starts_with("one\nOPTIONS * HTTP/1.1\r\n"), "{reply:?}");
    rig.end().await;
}
