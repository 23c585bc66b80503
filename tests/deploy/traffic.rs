//! No request is lost on any change.

use crate::hokku::{Hokku, request, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests without end, from several clients at once, until it is told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
    began: Instant,
}

impl Load {
    pub(crate) fn on(router: SocketAddr, app: &str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            sent: Arc::default(),
            failures: Arc::default(),
            clients: Vec::new(),
            began: Instant::now(),
        };
        let get = format!("GET /?load HTTP/1.1\r\nHost: {app}.localhost\r\n\r\n");
        let fresh = format!("GET /?load HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n");
        let body = "b".repeat(5000);
        let post = format!("POST /echo?load HTTP/1.1\r\nHost: {app}.localhost\r\nContent-Length: 5000\r\n\r\n{body}");
        for _ in 0..3 {
            load.client(router, get.clone(), true, |body| body.starts_with("version "));
        }
        load.client(router, fresh, false, |body| body.starts_with("version "));
        load.client(router, post, true, |body| body.len() == 5000);
        load
    }

    fn client(&mut self, router: SocketAddr, text: String, keep: bool, fine: fn(&str) -> bool) {
        let (stop, sent, failures) = (self.stop.clone(), self.sent.clone(), self.failures.clone());
        self.clients.push(std::thread::spawn(move || {
            let mut connection = None;
            while !stop.load(Ordering::Relaxed) {
                sent.fetch_add(1, Ordering::Relaxed);
                match exchange(&mut connection, router, &text) {
                    Ok((200, body)) if fine(&body) => {}
                    Ok((status, body)) => failures.lock().unwrap().push(format!("{status} {body}")),
                    Err(error) => failures.lock().unwrap().push(error.to_string()),
                }
                if !keep {
                    connection = None;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
    }

    /// Ends the load; how many requests were sent, and what went wrong.
    pub(crate) fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        let sent = self.sent.load(Ordering::Relaxed);
        println!("{sent} requests, {:.0} a second", sent as f64 / self.began.elapsed().as_secs_f64());
        (sent, std::mem::take(&mut self.failures.lock().unwrap()))
    }
}

/// One request on a connection that is kept; a server may close an idle one, never one with a request on it.
fn exchange(
    connection: &mut Option<BufReader<TcpStream>>,
    to: SocketAddr,
    text: &str,
) -> std::io::Result<(u16, String)> {
    if connection.is_none() {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        *connection = Some(BufReader::new(stream));
    }
    let reader = connection.as_mut().expect("just made");
    reader.get_mut().write_all(text.as_bytes())?;
    let (mut status, mut length, mut chunked, mut close) = (0, None, false, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection was closed without an answer"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        } else if status == 0 {
            status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok();
        } else if line == "transfer-encoding: chunked" {
            chunked = true;
        } else if line == "connection: close" {
            close = true;
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
    }
    if close {
        *connection = None;
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[test]
fn nothing_is_lost_while_releases_come_and_go() {
    let hokku = Hokku::start();
    let repository = hokku.app("busy", "echo");
    repository.write("version", "1").commit("1");
    hokku.push(&repository).expect_success();

    // The access log, as it comes.
    let mut tail = hokku
        .command(&["logs", "--tail", "--dyno", "router", "-a", "busy"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let logged = Arc::new(AtomicU64::new(0));
    let counter = logged.clone();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            assert!(!line.contains("Error L1"), "{line}");
            if line.contains("?load\"") {
                assert!(line.contains("status=200"), "{line}");
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    wait_for("the tail to flow", || {
        hokku.get("busy", "/?load");
        (logged.load(Ordering::Relaxed) > 0).then_some(())
    });
    let warm_up = wait_for("the warm-up to be logged", || {
        let before = logged.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        (before == logged.load(Ordering::Relaxed)).then_some(before)
    });

    let load = Load::on(hokku.router, "busy");
    let router = hokku.router;
    let stream = std::thread::spawn(move || {
        request(router, "GET /stream/100 HTTP/1.1\r\nHost: busy.localhost\r\nConnection: close\r\n\r\n").unwrap()
    });
    let mut socket = WebSocket::open(hokku.router, "busy");
    assert_eq!(socket.say("before"), "before");

    repository.write("version", "2").commit("2");
    hokku.push(&repository).expect_success();
    assert!(hokku.get("busy", "/").body.starts_with("version 2"), "the new code answers as soon as the push has ended");
    assert_eq!(socket.say("after"), "after", "a WebSocket outlives the release it began under");
    let changes: [&[&str]; 5] =
        [&["config:set", "A=1"], &["ps:scale", "web=2"], &["ps:restart"], &["rollback", "v3"], &["ps:scale", "web=1"]];
    for change in changes {
        hokku.ok(&[change, &["-a", "busy"]].concat());
        wait_for("the change to be made", || {
            let release = hokku.json(&["releases", "--json", "-a", "busy"])[0].clone();
            let settled = release["status"] == "succeeded";
            let wanted = if change == ["ps:scale", "web=1"] || change[0] == "config:set" { 1 } else { 2 };
            let dynos = hokku.dynos("busy");
            let fresh = dynos.iter().all(|d| d["state"] == "up" && d["release"]["version"] == release["version"]);
            (settled && fresh && dynos.len() == wanted).then_some(())
        });
    }
    let streamed = stream.join().unwrap();
    assert!(streamed.body.starts_with("0\n") && streamed.body.ends_with("99\nend\n"), "{:?}", streamed.body);

    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
    wait_for("the access log to have every request", || {
        (logged.load(Ordering::Relaxed) - warm_up >= sent).then_some(())
    });
    assert_eq!(logged.load(Ordering::Relaxed) - warm_up, sent, "the client and the access log disagree");
    tail.kill().unwrap();
    tail.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn nothing_is_lost_while_the_server_is_killed() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("rock");
    let load = Load::on(hokku.router, "rock");
    for _ in 0..3 {
        hokku.kill_server();
        std::thread::sleep(Duration::from_millis(300));
        hokku.start_server();
        assert_eq!(hokku.dynos("rock")[0]["state"], "up");
    }
    let (sent, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {sent} requests");
}

#[test]
fn unknown_hosts_and_blank_apps_have_pages_of_their_own() {
    let hokku = Hokku::start();
    hokku.ok(&["create", "blank-app"]);
    assert_eq!(hokku.get("nobody-here", "/").status, 404);
    wait_for("the blank page", || (hokku.get("blank-app", "/").status == 502).then_some(()));
    hokku.wait_for_log("blank-app", "code=H81");
}

#[test]
fn requests_carry_what_herokus_router_adds() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("headers");
    let headers: serde_json::Value = serde_json::from_str(&hokku.get("headers", "/headers").body).unwrap();
    for (name, value) in
        [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("host", "headers.localhost")]
    {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(headers["x-forwarded-port"], hokku.router.port().to_string());
    assert!(headers["x-request-id"].as_str().unwrap().len() >= 20);
    hokku.wait_for_log("headers", "at=info method=GET path=\"/headers\" host=headers.localhost request_id=");
}

pub(crate) struct WebSocket(TcpStream);

impl WebSocket {
    pub(crate) fn open(router: SocketAddr, app: &str) -> Self {
        let mut stream = TcpStream::connect(router).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "GET /ws HTTP/1.1\r\nHost: {app}.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455's own example: {head}");
        Self(stream)
    }

    pub(crate) fn say(&mut self, word: &str) -> String {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | u8::try_from(word.len()).unwrap()];
        frame.extend(mask);
        frame.extend(word.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).unwrap();
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }
}
