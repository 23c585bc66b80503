//! Requests and responses that two parties could read differently: refused, or written anew so that they can't.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Rig, app, dyno, raw};

/// Sends `request` on a connection of its own; everything that came back until the router closed or was silent.
async fn statuses(rig: &Rig, request: &str) -> Vec<u16> {
    let mut client = Client::to(rig.address).await;
    client.say(request).await;
    let mut statuses = Vec::new();
    loop {
        let reply = client.reply().await;
        if reply.status() == 0 {
            return statuses;
        }
        statuses.push(reply.status());
        if reply.header("connection") != Some("close") && reply.status() == 200 {
            // Alive: whatever was smuggled would be answered before this one.
            client.say("GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
        }
    }
}

#[tokio::test]
async fn bodies_of_doubtful_length_are_refused() {
    let rig = Rig::serving(app("one").await).await;
    for framing in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \u{b}chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
        assert_eq!(statuses(&rig, &request).await, [400], "{framing:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(statuses(&rig, old).await, [400], "no chunks in 1.0");
    rig.end().await;
}

#[tokio::test]
async fn chunks_win_over_a_length_and_nothing_behind_them_is_served() {
    let rig = Rig::serving(app("one").await).await;
    for framing in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 6"]
    {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
        );
        let mut client = Client::to(rig.address).await;
        client.say(&request).await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 200);
        assert!(!reply.body.to_lowercase().contains("content-length: 6"), "{}", reply.body);
        assert!(client.closed().await, "the second request is not served");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_chunk_that_ends_in_a_bare_line_feed_is_refused() {
    let rig = Rig::serving(app("one").await).await;
    for chunk in [
        "5;\nxxx\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5x\r\nhello\r\n0\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        let got = statuses(&rig, &request).await;
        assert!(!got.contains(&200), "{chunk:?}: {got:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn bare_line_feeds_in_a_head_become_proper_line_ends() {
    let rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("GET /x HTTP/1.1\nHost: a.test\nX-A: b\n\n").await;
    assert!(reply.body.contains("\r\nx-a: b\r\n"), "{reply:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let rig = Rig::serving(app("one").await).await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
    ] {
        assert_eq!(rig.ask(request).await.status(), 400, "{request:?}");
    }
    for host in ["a.test", "A.TEST", "a.test:8080", "a.test.", "A.test.:1"] {
        assert_eq!(rig.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.status(), 200, "{host}");
    }
    rig.end().await;
}

#[tokio::test]
async fn the_address_in_the_request_line_counts_and_the_dyno_sees_no_other() {
    let rig = Rig::serving(app("one").await).await;
    let reply = rig.ask("GET http://A.test:80/x?y HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    assert!(reply.body.starts_with("one\nGET /x?y HTTP/1.1\r\n"), "{reply:?}");
    assert!(reply.body.contains("\r\nhost: A.test:80\r\n") && !reply.body.contains("other"), "{reply:?}");
    assert_eq!(rig.ask("GET http://other.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 404);
    let empty = rig.ask("GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(empty.body.starts_with("one\nGET / HTTP/1.1\r\n"), "{empty:?}");
    rig.end().await;
}

#[tokio::test]
async fn connect_is_refused() {
    let rig = Rig::serving(app("one").await).await;
    assert_eq!(rig.ask("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status(), 405);
    rig.end().await;
}

#[tokio::test]
async fn a_client_cannot_have_headers_removed_that_the_app_relies_on() {
    let rig = Rig::serving(app("one").await).await;
    let reply = rig
        .ask("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.1.1.1\r\nHop: 1\r\nConnection: host, x-forwarded-for, x-request-id, hop\r\n\r\n")
        .await;
    assert_eq!(reply.status(), 200);
    assert!(reply.body.contains("host: a.test\r\n"), "{reply:?}");
    assert!(reply.body.contains("x-forwarded-for: 1.1.1.1, 127.0.0.1\r\n"), "{reply:?}");
    assert!(reply.body.contains("x-request-id: ") && !reply.body.contains("hop:"), "{reply:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_change_to_http2_is_not_passed_on() {
    let rig = Rig::serving(app("one").await).await;
    let reply = rig
        .ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
        .await;
    assert_eq!(reply.status(), 200);
    let seen = reply.body.to_lowercase();
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{reply:?}");
    rig.end().await;
}

#[tokio::test]
async fn a_response_with_length_and_chunks_reaches_the_client_in_one_framing() {
    let dyno =
        raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let mut rig = Rig::serving(dyno).await;
    let mut client = Client::to(rig.address).await;
    for _ in 0..2 {
        let reply = client.ask(GET).await;
        assert_eq!(
            (reply.body.as_str(), reply.whole, reply.header("content-length")),
            ("hello", true, None),
            "{reply:?}"
        );
        assert!(rig.line().await.contains("status=200 bytes=5"));
    }
    rig.end().await;
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_one_after_the_other() {
    let rig = Rig::serving(app("one").await).await;
    let mut client = Client::to(rig.address).await;
    client.say("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    assert!(client.reply().await.body.starts_with("one\nGET /1 "));
    assert!(client.reply().await.body.starts_with("one\nGET /2 "));
    assert_eq!(client.reply().await.status(), 404, "a connection does not stick to an app");
    rig.end().await;
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused_and_one_below_passes() {
    let rig = Rig::serving(app("one").await).await;
    let with = |headers: &str| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n");
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<Vec<_>>().concat();
    let sized = |count: usize, size: usize| {
        let value = "y".repeat(size);
        (0..count).map(|n| format!("Y-{n}: {value}\r\n")).collect::<Vec<_>>().concat()
    };
    assert_eq!(rig.ask(&with(&sized(1, 7000))).await.status(), 200);
    assert_eq!(rig.ask(&with(&sized(7, 7000))).await.status(), 200);
    assert_eq!(rig.ask(&with(&many(80))).await.status(), 200);
    assert_eq!(rig.ask(&with(&sized(1, 9000))).await.status(), 431);
    assert_eq!(rig.ask(&with(&sized(12, 7000))).await.status(), 431);
    assert_eq!(rig.ask(&with(&many(150))).await.status(), 431);
    assert_eq!(rig.ask(&format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(9000))).await.status(), 414);
    rig.end().await;
}

#[tokio::test]
async fn a_client_cannot_forge_a_log_line() {
    let mut rig = Rig::serving(app("one").await).await;
    rig.ask("GET /\"%20status=500 HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: \"\\ dyno=web.9\r\n\r\n").await;
    let line = rig.line().await;
    assert!(line.starts_with("at=info method=GET path=\"/%22%20status=500\" host=a.test "), "{line}");
    assert!(line.contains(" fwd=\"%22%5C dyno=web.9, 127.0.0.1\" dyno=web.1 "), "{line}");
    rig.end().await;
}

#[tokio::test]
async fn early_hints_are_left_out() {
    let address = dyno(|mut connection| async move {
        connection.head().await;
        connection
            .say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let rig = Rig::serving(address).await;
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.body.as_str()), (200, "ok"));
    rig.end().await;
}
