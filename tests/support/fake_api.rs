//! A Platform API that answers by script, on TCP and on a Unix socket, and remembers what it was asked.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hokku::wire::attach::{Frame, PROTOCOL};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

/// The token that the fake knows.
pub(crate) const TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// What is answered to one method and path.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Json(u16, Value),
    /// A list over several pages.
    Pages(Vec<Value>),
    /// One after the other; the last one stays.
    Turns(Vec<Value>),
    Text(&'static str),
    /// Text that is sent and then kept open until the client goes.
    Endless(&'static str),
    /// Takes any body.
    Upload,
    /// What an attached dyno does.
    Attach(Program),
}

/// Programs of attached dynos.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// Copies stdin to stdout.
    Cat,
    /// Prints to both streams and ends with 7.
    Exit7,
    /// Ends with the first signal.
    Signal,
    /// Prints each window size, and each key as a number, until `q`.
    Keys,
    /// Could not be started.
    Error,
    /// Goes away without a word.
    Lost,
}

#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
    uploads: Mutex<Vec<Bytes>>,
}

/// A running fake; its thread ends when this is dropped.
pub(crate) struct FakeApi {
    script: Arc<Script>,
    pub(crate) address: SocketAddr,
    /// The instance's root, with a record that leads to the socket.
    pub(crate) root: TempDir,
    _stop: mpsc::Sender<()>,
}

impl FakeApi {
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let script = Arc::new(Script::default());
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopped) = mpsc::channel(1);
        let (shared, socket) = (script.clone(), root.path().join("api.sock"));
        std::thread::spawn(move || serve(shared, &socket, &ready, stopped));
        let address = started.recv().unwrap();
        let record = json!({ "name": "test", "run": root.path(), "api": address, "root": root.path(), "number": 3 });
        std::fs::write(root.path().join("instance.json"), record.to_string()).unwrap();
        Self { script, address, root, _stop: stop }
    }

    /// `request` as `GET /apps`.
    pub(crate) fn on(&self, request: &str, answer: Answer) -> &Self {
        self.script.answers.lock().unwrap().insert(request.to_owned(), answer);
        self
    }

    pub(crate) fn json(&self, request: &str, body: Value) -> &Self {
        let status = if request.starts_with("POST") { 201 } else { 200 };
        self.on(request, Answer::Json(status, body))
    }

    pub(crate) fn error(&self, request: &str, status: u16, body: Value) -> &Self {
        self.on(request, Answer::Json(status, body))
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }

    /// Whether `request` has been asked; leaves the list as it is.
    pub(crate) fn has_asked(&self, request: &str) -> bool {
        self.script.asked.lock().unwrap().iter().any(|asked| asked.starts_with(request))
    }

    pub(crate) fn uploads(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.script.uploads.lock().unwrap())
    }
}

fn serve(
    script: Arc<Script>,
    socket: &Path,
    ready: &std::sync::mpsc::Sender<SocketAddr>,
    mut stopped: mpsc::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = Router::new().fallback(answer).with_state(script);
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unix = tokio::net::UnixListener::bind(socket).unwrap();
        ready.send(tcp.local_addr().unwrap()).unwrap();
        tokio::spawn({
            let app = app.clone().layer(axum::middleware::from_fn(with_token));
            async move { axum::serve(tcp, app).await.unwrap() }
        });
        tokio::spawn(async move { axum::serve(unix, app).await.unwrap() });
        stopped.recv().await;
    });
    runtime.shutdown_background();
}

/// Over TCP a token is needed, except on the secret URLs.
async fn with_token(request: Request, next: axum::middleware::Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if bearer == Some(&format!("Bearer {TOKEN}")) {
        return next.run(request).await;
    }
    let body = json!({ "id": "unauthorized", "message": "Invalid credentials provided." });
    (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response()
}

async fn answer(State(script): State<Arc<Script>>, mut request: Request) -> Response {
    let key = format!("{} {}", request.method(), request.uri());
    let headers = request.headers().clone();
    let answer = script.answers.lock().unwrap().get_mut(&key).map(|answer| match answer {
        Answer::Turns(turns) if turns.len() > 1 => Answer::Json(200, turns.remove(0)),
        Answer::Turns(turns) => Answer::Json(200, turns[0].clone()),
        answer => answer.clone(),
    });
    let attach = matches!(answer, Some(Answer::Attach(_)));
    let upgrade = attach.then(|| hyper::upgrade::on(&mut request));
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let upload = matches!(answer, Some(Answer::Upload));
    script.asked.lock().unwrap().push(describe(&key, &headers, if upload { b"" } else { &body }));
    match answer {
        None => {
            let body = json!({ "id": "not_found", "resource": "app", "message": "Couldn't find that app." });
            (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
        }
        Some(Answer::Json(status, body)) => (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response(),
        Some(Answer::Turns(_)) => unreachable!("a turn was taken above"),
        Some(Answer::Pages(pages)) => page(&pages, &headers),
        Some(Answer::Text(text)) => text.into_response(),
        Some(Answer::Endless(text)) => endless(text),
        Some(Answer::Upload) => {
            script.uploads.lock().unwrap().push(body);
            StatusCode::OK.into_response()
        }
        Some(Answer::Attach(program)) => {
            let upgrade = upgrade.expect("asked for above");
            tokio::spawn(async move {
                let stream = TokioIo::new(upgrade.await.unwrap());
                // The client may go at any moment.
                let _ = act(program, stream).await;
            });
            (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "Upgrade"), (header::UPGRADE, PROTOCOL)])
                .into_response()
        }
    }
}

fn describe(key: &str, headers: &HeaderMap, body: &[u8]) -> String {
    let mut text = key.to_owned();
    for name in ["range", "x-hokku-attached", "upgrade"] {
        if let Some(value) = headers.get(name) {
            write!(text, " [{name}: {}]", value.to_str().unwrap()).unwrap();
        }
    }
    if !body.is_empty() {
        write!(text, " {}", String::from_utf8_lossy(body)).unwrap();
    }
    text
}

/// Pages are asked for as `page 1..`, `page 2..`.
fn page(pages: &[Value], headers: &HeaderMap) -> Response {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or("page 0..");
    let number: usize = range["page ".len()..range.len() - 2].parse().unwrap();
    let body = axum::Json(pages[number].clone());
    if number + 1 < pages.len() {
        (StatusCode::PARTIAL_CONTENT, [("next-range", format!("page {}..", number + 1))], body).into_response()
    } else {
        body.into_response()
    }
}

fn endless(text: &'static str) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(text.into())).await;
        sender.closed().await;
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

async fn act(program: Program, mut stream: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    let exit = match program {
        Program::Lost => return Ok(()),
        Program::Error => Frame::Error("no memory for another dyno".to_owned()),
        Program::Exit7 => {
            stream.write_all(&Frame::Stdout(b"to stdout\n".to_vec()).encode()).await?;
            stream.write_all(&Frame::Stderr(b"to stderr\n".to_vec()).encode()).await?;
            Frame::Exit(7)
        }
        Program::Cat => loop {
            match Frame::read(&mut stream).await? {
                Some(Frame::Stdin(bytes)) => stream.write_all(&Frame::Stdout(bytes).encode()).await?,
                Some(Frame::StdinEnd) | None => break Frame::Exit(0),
                Some(_) => {}
            }
        },
        Program::Signal => {
            stream.write_all(&Frame::Stdout(b"ready\n".to_vec()).encode()).await?;
            loop {
                match Frame::read(&mut stream).await? {
                    Some(Frame::Signal(number)) => break Frame::Exit(128 + i32::from(number)),
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
        Program::Keys => loop {
            let text = match Frame::read(&mut stream).await? {
                Some(Frame::Resize { columns, rows }) => format!("{columns}x{rows}\r\n"),
                Some(Frame::Stdin(bytes)) if bytes == b"q" => break Frame::Exit(3),
                Some(Frame::Stdin(bytes)) => format!("{bytes:?}\r\n"),
                Some(_) => continue,
                None => return Ok(()),
            };
            stream.write_all(&Frame::Stdout(text.into_bytes()).encode()).await?;
        },
    };
    stream.write_all(&exit.encode()).await?;
    stream.shutdown().await
}
