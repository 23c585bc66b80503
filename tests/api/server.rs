//! A server for one test, and a client that writes down what is said.
#![forbid(unsafe_code)]

use crate::engine::Pretender;
use crate::schema;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hokku::api;
use hokku::control::{Control, Parts, Place};
use hokku::domain::app::AppId;
use hokku::domain::dyno::{DynoState, Purpose};
use hokku::domain::instance::Instance;
use hokku::domain::log::LogFilter;
use hokku::domain::release::{Change, History, Release, ReleaseId, ReleaseStatus};
use hokku::domain::slug::{Slug, SlugId};
use hokku::domain::stack::StackName;
use hokku::drains::{Drains, Reach};
use hokku::logs::{Hub, HubLimits, Outputs};
use hokku::slug::SlugStore;
use hokku::stack::{Origin, Stacks};
use hokku::store::{self, Store, StoreError};
use hokku::supervisor::{self, Supervisor, builds};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) struct Server {
    pub(crate) control: Control,
    pub(crate) addr: SocketAddr,
    root: TempDir,
    transcript: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let outputs = Outputs::open(root.path().join("output")).unwrap();
        let mut instance = Instance::new("test".parse().unwrap(), root.path().to_owned(), 0);
        // There is none of it on the machine.
        instance.run = root.path().join("run");
        std::fs::create_dir(&instance.run).unwrap();
        let place = Place {
            instance,
            domain: "localhost".into(),
            router_port: 8080,
            stack: StackName::Host,
            keep: hokku::control::disk::Keep { reserve: 0, slugs: 10, caches: u64::MAX },
            source_limit: 100_000,
        };
        let hub = Hub::open(root.path().join("logs"), HubLimits::default()).unwrap();
        let slugs = SlugStore::open(root.path()).unwrap().with_program(env!("CARGO_BIN_EXE_hokku").into());
        let stacks = Stacks::open(root.path(), slugs.clone(), &[], Origin::default()).unwrap();
        let (events, happened) = mpsc::unbounded_channel();
        let settings = builds::Settings::new(root.path().to_owned(), "localhost".into(), 8080);
        let supervisor = Supervisor::start(
            supervisor::Parts {
                store: store.clone(),
                hub: hub.clone(),
                outputs: outputs.clone(),
                slugs: slugs.clone(),
                stacks: stacks.clone(),
                engine: Arc::new(Pretender::new(events)),
                router: None,
                settings: supervisor::Settings::default(),
            },
            Vec::new(),
            happened,
            settings,
        );
        let closing = CancellationToken::new();
        let drains = Drains::new(hub.clone(), Reach::default());
        let parts = Parts { store, supervisor, hub, outputs, slugs, stacks, drains, place, closing };
        let control = Control::new(parts).unwrap();
        let socket = UnixListener::bind(root.path().join("api.sock")).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let git = hokku::git::routes(&control).unwrap();
        tokio::spawn(api::serve_unix(socket, control.clone(), git.clone()));
        let tls = hokku::tls::acceptor(root.path(), &["localhost".to_owned()]).unwrap();
        tokio::spawn(api::serve_tcp(listener, tls, control.clone(), git));
        Self { control, addr, root, transcript: String::new() }
    }

    /// With one app, `shop`.
    pub(crate) async fn with_app() -> Self {
        let server = Self::start().await;
        server.quietly("POST", "/apps", r#"{"name":"shop"}"#).await;
        server
    }

    /// With one app, `shop`, that runs `web` and has a `worker` and a release phase: v3.
    pub(crate) async fn with_code() -> Self {
        let server = Self::with_app().await;
        server.deploy("1a2b3c4d5e6f").await;
        server
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) async fn app(&self) -> AppId {
        let app: Result<_, StoreError> = self.control.store.read(|tx| store::apps::find(tx, "shop")).await;
        app.unwrap().unwrap().id
    }

    /// Releases new code of `shop` as a build would, and waits until it serves.
    pub(crate) async fn deploy(&self, commit: &'static str) -> Release {
        let app = self.app().await;
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("server.js"), commit).unwrap();
        let packed = self.control.slugs.pack(tree.path()).unwrap();
        let made: Result<Release, StoreError> = self
            .control
            .store
            .write(move |tx| {
                let actor = store::accounts::admin(tx)?.actor();
                let types = [("release", "rake db:migrate"), ("web", "node server.js"), ("worker", "node work.js")];
                let slug = Slug {
                    id: SlugId(Uuid::new_v4()),
                    app,
                    digest: packed.digest,
                    size: packed.size,
                    commit: Some(commit.into()),
                    commit_description: None,
                    checksum: None,
                    stack: "host-debian-12".into(),
                    languages: Vec::new(),
                    process_types: types
                        .map(|(kind, command)| (kind.to_owned().try_into().unwrap(), command.into()))
                        .into(),
                    buildpack_description: Some("Node.js".into()),
                    created_at: Timestamp::now(),
                };
                store::slugs::insert(tx, &slug)?;
                let (newest, standing) = (store::releases::newest(tx, app)?, store::releases::standing(tx, app)?);
                let history = History { newest: newest.as_ref(), standing: standing.as_ref() };
                let change = Change::Deploy { slug: slug.id, commit: Some(commit), defaults: &BTreeMap::new() };
                let id = ReleaseId(Uuid::new_v4());
                let release = Release::next(id, app, history, &change, actor, Timestamp::now()).unwrap();
                store::releases::insert(tx, &release)?;
                Ok(release)
            })
            .await;
        let release = made.unwrap();
        self.control.supervisor.wake(app);
        self.quiet().await;
        release
    }

    /// Waits until no release of `shop` is pending and all dynos that its formation wants are up with the newest.
    pub(crate) async fn quiet(&self) {
        let app = self.app().await;
        until(async || {
            let wanted: Result<_, StoreError> = self
                .control
                .store
                .read(move |tx| {
                    let newest = store::releases::newest(tx, app)?.unwrap();
                    Ok((newest, store::formations::get(tx, app)?))
                })
                .await;
            let (newest, formation) = wanted.unwrap();
            let dynos = self.control.supervisor.dynos(app).await;
            let formation_dynos: Vec<_> = dynos.iter().filter(|dyno| dyno.purpose == Purpose::Formation).collect();
            newest.status != ReleaseStatus::Pending
                && formation_dynos.len() == formation.0.values().map(|scale| scale.quantity as usize).sum::<usize>()
                && formation_dynos
                    .iter()
                    .all(|dyno| matches!(dyno.state, DynoState::Up { .. }) && dyno.release_version == newest.version)
        })
        .await;
    }

    pub(crate) fn request(method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header("host", "paas.test:5000")
    }

    /// Over the Unix socket, as root.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send(UnixStream::connect(self.root().join("api.sock")).await.unwrap(), request).await
    }

    pub(crate) async fn send_tcp(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send(TcpStream::connect(self.addr).await.unwrap(), request).await
    }

    /// The answer's JSON.
    pub(crate) async fn quietly(&self, method: &str, path: &str, body: &str) -> Value {
        let response = self.send(Self::request(method, path).body(Full::from(body.to_owned())).unwrap()).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert!(status.is_success(), "{method} {path}: {status} {value}");
        schema::check(method, path, &value);
        value
    }

    /// As the account of that token, over TCP: the status, and the answer's JSON.
    pub(crate) async fn as_with(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Self::request(method, path).header("authorization", format!("Bearer {token}"));
        let response = self.send_tcp(request.body(Full::from(body.to_owned())).unwrap()).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            schema::check(method, path, &value);
        }
        (status, value)
    }

    /// A token of a new account of that address.
    pub(crate) async fn newcomer(&self, email: &str, admin: bool) -> String {
        let body = serde_json::json!({ "email": email, "admin": admin, "password": "correct horse" });
        self.quietly("POST", "/accounts", &body.to_string()).await;
        let basic = format!("Basic {}", STANDARD.encode(format!("{email}:correct horse")));
        let request = Self::request("POST", "/oauth/authorizations").header("authorization", basic);
        let response = self.send_tcp(request.body(Full::from(r#"{"description":"test"}"#)).unwrap()).await;
        assert_eq!(response.status(), 201);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let made: Value = serde_json::from_slice(&bytes).unwrap();
        made["access_token"]["token"].as_str().unwrap().to_owned()
    }

    /// Asks as root, and writes down the question and the whole answer.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> Value {
        self.ask_with(method, path, body, &[]).await
    }

    pub(crate) async fn ask_with(&mut self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Value {
        let request =
            headers.iter().fold(Self::request(method, path), |request, (name, value)| request.header(*name, *value));
        let response = self.send(request.body(Full::from(body.to_owned())).unwrap()).await;
        self.write_down(method, path, body, headers, response).await
    }

    /// Like [`Server::ask_with`], but over TCP, where nobody is root.
    pub(crate) async fn ask_tcp(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Value {
        let request =
            headers.iter().fold(Self::request(method, path), |request, (name, value)| request.header(*name, *value));
        let response = self.send_tcp(request.body(Full::default()).unwrap()).await;
        self.write_down(method, path, "", headers, response).await
    }

    async fn write_down(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
        response: Response<Incoming>,
    ) -> Value {
        let out = &mut self.transcript;
        let cut = if body.len() > 500 { format!("{}… ({} bytes)", &body[..60], body.len()) } else { body.to_owned() };
        write!(out, "{method} {path} {cut}").unwrap();
        while out.ends_with(' ') {
            out.pop();
        }
        for (name, value) in headers {
            write!(out, "\n  {name}: {value}").unwrap();
        }
        write!(out, "\n=> {}", response.status().as_u16()).unwrap();
        for name in ["content-range", "next-range", "upgrade"] {
            if let Some(value) = response.headers().get(name) {
                write!(out, "\n   {name}: {}", value.to_str().unwrap()).unwrap();
            }
        }
        assert!(response.headers().contains_key("request-id"), "{method} {path}");
        let fine = response.status().is_success();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if fine {
            schema::check(method, path, &value);
        }
        let text = match &value {
            Value::Null => String::from_utf8_lossy(&bytes).into_owned(),
            value if value.to_string().len() <= 110 => value.to_string(),
            value => serde_json::to_string_pretty(value).unwrap(),
        };
        writeln!(out, "\n{text}\n").unwrap();
        value
    }

    /// The line `note` in the transcript.
    pub(crate) fn note(&mut self, note: impl std::fmt::Display) {
        writeln!(self.transcript, "{note}\n").unwrap();
    }

    /// What the API wrote to the app's log, without its times.
    pub(crate) async fn log(&self) -> String {
        let filter = LogFilter { process: Some("api".into()), ..LogFilter::default() };
        let frames = self.control.hub.recent(self.app().await, &filter, 1500);
        let lines = frames.iter().map(|frame| format!("{}[{}]: {}", frame.source.word(), frame.process, frame.line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What was said, fit for a snapshot.
    pub(crate) fn transcript(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Response<Incoming> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

/// The same with another last digit.
pub(crate) fn altered(secret: &str) -> String {
    let (rest, last) = secret.split_at(secret.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// Polls until `ready`, for at most ten seconds.
pub(crate) async fn until(ready: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready().await {
        assert!(Instant::now() < deadline, "waited for ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Replaces what differs from run to run.
#[macro_export]
macro_rules! assert_said {
    ($text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[uuid]");
        settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[time]");
        settings.add_filter(r"hokku_[0-9a-f]{48}", "[token]");
        settings.add_filter(r"/(sources|slugs)/[0-9a-f]{32}", "/$1/[secret]");
        settings.add_filter(r"/streams/\[uuid\]/[0-9a-f]{64}", "/streams/[uuid]/[secret]");
        settings.add_filter(r"/attach/[0-9a-f]{96}", "/attach/[secret]");
        settings.add_filter(r"/logs/\[uuid\]-[0-9a-f]{32}-[0-9a-f]+", "/logs/[ticket]");
        settings.add_filter(r"\brun\.\d{4}\b", "run.[number]");
        settings.add_filter(r"rendezvous://([^/]+)/[0-9a-f]{96}", "rendezvous://$1/[secret]");
        settings.add_filter(r"\b[0-9a-f]{64}\b", "[digest]");
        settings.add_filter(r#"-----BEGIN [A-Z ]+-----\\n[^"…]*(… \(\d+ bytes\))?"#, "[pem]");
        settings.add_filter(r#""slug_size": \d+"#, r#""slug_size": [bytes]"#);
        settings.add_filter(r#""size": \d+"#, r#""size": [bytes]"#);
        settings.add_filter(r"[a-z]+-[a-z]+-\d{5}\b", "[invented]");
        settings.bind(|| insta::assert_snapshot!($text));
    }};
}
