//! Drains against receivers that listen for real.
#![forbid(unsafe_code)]

use super::*;
use crate::domain::drain::DrainUrl;
use crate::domain::log::LogFilter;
use crate::logs::HubLimits;
use std::collections::BTreeSet;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

struct Rig {
    hub: Hub,
    app: AppId,
    listener: TcpListener,
    _dir: tempfile::TempDir,
    drains: Drains,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hub = Hub::open(dir.path().join("logs"), HubLimits::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = BTreeSet::from([listener.local_addr().unwrap().port()]);
        let drains = Drains::new(hub.clone(), Reach { open });
        Self { hub, app: AppId(Uuid::new_v4()), listener, _dir: dir, drains }
    }

    fn start(&self, scheme: &str) -> Drain {
        let url = format!("{scheme}127.0.0.1:{}", self.listener.local_addr().unwrap().port());
        let (id, created_at) = (Uuid::new_v4(), Timestamp::now());
        let url = DrainUrl::parse(&url).unwrap();
        let drain = Drain { id, app: self.app, token: format!("d.{id}"), url, created_at };
        self.drains.start(drain.clone());
        drain
    }

    fn say(&self, line: &str) {
        self.hub.write(self.app, LogFrame::platform(Timestamp::now(), Source::App, "web.1", line));
    }

    async fn accept(&self) -> BufReader<TcpStream> {
        BufReader::new(soon(self.listener.accept()).await.unwrap().0)
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("nothing came")
}

async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    soon(stream.read_line(&mut line)).await.unwrap();
    line
}

#[tokio::test]
async fn lines_arrive_in_frames_and_after_a_break_on_a_new_connection() {
    let rig = Rig::new().await;
    let drain = rig.start("syslog://");
    rig.say("one");
    let mut stream = rig.accept().await;
    let first = line(&mut stream).await;
    let (length, frame) = first.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), frame.len());
    assert!(frame.starts_with("<190>1 ") && frame.ends_with(&format!(" {} app web.1 - one\n", drain.token)), "{frame}");
    rig.say("two");
    assert!(line(&mut stream).await.ends_with(" - two\n"));
    drop(stream);
    rig.say("three");
    let mut stream = rig.accept().await;
    assert!(line(&mut stream).await.ends_with(" - three\n"));
    rig.drains.stop(drain.id);
    let mut rest = String::new();
    soon(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "", "a drain that was stopped says no more");
}

#[tokio::test]
async fn a_request_of_http_is_sent_again_until_it_is_taken() {
    let rig = Rig::new().await;
    let drain = rig.start("http://user:pass@");
    rig.say("one");
    rig.say("two");
    let mut ids = Vec::new();
    for status in ["500 Oops", "204 No Content"] {
        let mut stream = rig.accept().await;
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let line = line(&mut stream).await.to_ascii_lowercase();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            head.push(line.trim().to_owned());
        }
        let mut body = vec![0; length];
        soon(stream.read_exact(&mut body)).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains(" host app web.1 - one\n") && body.ends_with(" host app web.1 - two\n"), "{body}");
        for wanted in [
            "post / http/1.1".to_owned(),
            "content-type: application/logplex-1".to_owned(),
            "logplex-msg-count: 2".to_owned(),
            format!("logplex-drain-token: {}", drain.token),
            "authorization: basic dxnlcjpwyxnz".to_owned(),
        ] {
            assert!(head.contains(&wanted), "{wanted}\n{head:?}");
        }
        ids.extend(head.into_iter().find(|line| line.starts_with("logplex-frame-id: ")));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    assert_eq!(ids[0], ids[1], "the receiver can tell that it is the same batch");
    let log = rig.hub.recent(rig.app, &LogFilter::default(), 10);
    let told: Vec<_> = log.iter().filter(|frame| frame.process == "logplex").collect();
    assert!(told.len() == 1 && told[0].line.contains("L13") && told[0].line.contains("status 500"), "{told:?}");
    assert!(!told[0].line.contains("pass"));
}

#[tokio::test]
async fn what_a_slow_receiver_misses_is_counted_where_it_is_missing() {
    let rig = Rig::new().await;
    rig.start("syslog://");
    rig.say("first");
    let mut stream = rig.accept().await;
    // More than the connection's buffers and the queue hold.
    let long = "x".repeat(9000);
    for _ in 0..6000 {
        rig.say(&long);
    }
    rig.say("last");
    let (mut whole, mut dropped) = (0, 0);
    loop {
        let line = line(&mut stream).await;
        let text = line.rsplit_once(" - ").map_or("", |(_, text)| text.trim_end());
        if let Some(rest) = text.strip_prefix("Error L10 (output buffer overflow): ") {
            assert!(line.contains(" heroku logplex - "), "{line}");
            dropped += rest.split(' ').next().unwrap().parse::<u32>().unwrap();
            // Nothing is queued behind what is missing until it has been told.
            rig.say("after it");
        }
        whole += u32::from(text == long);
        if text == "after it" {
            break;
        }
    }
    assert!(dropped > 0 && (6000..=6001).contains(&(whole + dropped)), "{whole} came, {dropped} did not");
}

#[tokio::test]
async fn a_receiver_without_a_trusted_certificate_gets_nothing() {
    let rig = Rig::new().await;
    let root = tempfile::tempdir().unwrap();
    let acceptor = crate::tls::acceptor(root.path(), &["127.0.0.1".to_owned()]).unwrap();
    rig.start("syslog+tls://");
    rig.say("secret");
    let (stream, _) = soon(rig.listener.accept()).await.unwrap();
    assert!(soon(acceptor.accept(stream)).await.is_err(), "the drain breaks the handshake off");
    let mut told = rig.hub.tail(rig.app, LogFilter { process: Some("logplex".into()), source: None }, 10);
    assert!(soon(told.next()).await.unwrap().line.contains("L14 (Certificate validation error)"));
}
