//! TLS of the router's, by real clients.
#![forbid(unsafe_code)]

use crate::rig::{Client, GET, Rig, app, dyno, dynos, get, header, soon, until};
use hokku::router::{Certificates, Settings};
use hokku::tls::Pair;
use rcgen::{CertificateParams, KeyPair};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A self-signed certificate.
fn pair(name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    Pair { chain, key: key.serialize_pem() }
}

fn shown(own: &Pair, others: &[(&str, &Pair)]) -> Certificates {
    let others = others.iter().map(|(name, pair)| (vec![(*name).to_owned()], (*pair).clone())).collect();
    Certificates { own: own.clone(), others }
}

/// A connection by a client that calls the server `name` and trusts nothing but that certificate.
async fn connect(address: SocketAddr, name: &str, trusted: &Pair) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.chain.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    soon(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream)).await
}

/// The tests' client on top of such a connection.
async fn client(rig: &Rig, name: &str, trusted: &Pair) -> Client {
    let mut stream = connect(tls(rig), name, trusted).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        // However it ends, the client sees it.
        let _ = copy_bidirectional(&mut near, &mut stream).await;
    });
    Client::to(address).await
}

fn tls(rig: &Rig) -> SocketAddr {
    rig.router().tls_address().unwrap()
}

/// A router that shows `own`, and for a name `other`; one app behind it, at both its names.
async fn serving(settings: Settings, own: &Pair, other: Option<(&str, &Pair)>) -> Rig {
    let mut rig = Rig::with_tls(settings).await;
    rig.route(dynos(&[app("one").await])).await;
    rig.router().certify(shown(own, other.as_slice()));
    rig
}

#[tokio::test]
async fn the_certificate_is_the_names_own_and_the_app_is_told_of_https() {
    let (own, other) = (pair("a.test"), pair("b.test"));
    let mut rig = serving(Settings::default(), &own, Some(("b.test", &other))).await;
    let reply = client(&rig, "a.test", &own).await.ask(GET).await;
    assert_eq!(reply.status(), 200);
    let seen = reply.body.strip_prefix("one\n").unwrap();
    let port = tls(&rig).port().to_string();
    assert_eq!(header(seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(header(seen, "x-forwarded-port"), Some(port.as_str()));
    assert_eq!(header(seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert!(rig.line().await.ends_with(" protocol=https"));
    assert_eq!(header(&rig.ask(GET).await.body, "x-forwarded-proto"), Some("http"), "beside it, as before");
    assert!(rig.line().await.ends_with(" protocol=http"));

    assert_eq!(client(&rig, "b.test", &other).await.ask(GET).await.status(), 200);
    assert!(connect(tls(&rig), "b.test", &own).await.is_err(), "it is not the other one");
    assert!(connect(tls(&rig), "a.test", &other).await.is_err());
    rig.end().await;
}

#[tokio::test]
async fn a_websocket_passes() {
    let own = pair("a.test");
    let echo = dyno(|mut connection| async move {
        connection.head().await.unwrap();
        connection.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        while let Some(line) = connection.through("\n").await {
            connection.say(line).await;
        }
    })
    .await;
    let mut rig = serving(Settings::default(), &own, None).await;
    rig.route(dynos(&[echo])).await;
    let mut client = client(&rig, "a.test", &own).await;
    client.say("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
    for line in ["one\n", "two\n"] {
        client.say(line).await;
        assert_eq!(client.through("\n").await.as_deref(), Some(line));
    }
    rig.end().await;
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let own = pair("a.test");
    let mut rig = serving(Settings::default(), &own, None).await;
    let size = 5 << 20;
    let large = dyno(move |mut connection| async move {
        connection.head().await.unwrap();
        let _ =
            connection.try_say(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size))).await;
    })
    .await;
    rig.route(dynos(&[large])).await;
    let reply = client(&rig, "a.test", &own).await.ask(GET).await;
    assert!(reply.whole && reply.body.len() == size);
    rig.end().await;
}

#[tokio::test]
async fn a_changed_certificate_is_shown_from_the_next_handshake_on_and_no_connection_is_lost() {
    let (own, old, new) = (pair("a.test"), pair("b.test"), pair("b.test"));
    let rig = serving(Settings::default(), &own, Some(("b.test", &old))).await;
    let mut before = client(&rig, "b.test", &old).await;
    assert_eq!(before.ask(GET).await.status(), 200);
    rig.router().certify(shown(&own, &[("b.test", &new)]));
    let begun = Instant::now();
    while connect(tls(&rig), "b.test", &new).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert!(connect(tls(&rig), "b.test", &old).await.is_err());
    assert_eq!(before.ask(GET).await.status(), 200, "on the connection from before");
    let broken = Pair { chain: String::new(), key: String::new() };
    rig.router().certify(shown(&broken, &[]));
    // What comes later over the same channel is heard later.
    soon(rig.router().drained(crate::rig::id(rig.address), Duration::from_secs(20))).await;
    assert!(connect(tls(&rig), "b.test", &new).await.is_ok(), "those from before stay");
    rig.end().await;
}

#[tokio::test]
async fn a_killed_router_shows_the_same_again_and_keys_are_in_no_file() {
    let (own, other) = (pair("a.test"), pair("b.test"));
    let mut rig = serving(Settings::default(), &own, Some(("b.test", &other))).await;
    assert_eq!(client(&rig, "b.test", &other).await.ask(GET).await.status(), 200);
    let (pid, address) = (rig.router().pid(), tls(&rig));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    // It waits in the socket's queue until the next router has its certificates: no other is ever shown.
    for _ in 0..10 {
        assert_eq!(client(&rig, "b.test", &other).await.ask(GET).await.status(), 200);
    }
    assert_ne!(rig.router().pid(), pid);
    let secret = other.key.lines().nth(1).unwrap().as_bytes().to_owned();
    for file in std::fs::read_dir(&rig.instance.run).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{}", path.display());
    }
    // The server goes, and the router serves on; the next one finds it at the same address.
    let pid = rig.router().pid();
    rig.server_goes();
    assert!(connect(address, "b.test", &other).await.is_ok());
    rig.server_comes().await;
    assert_eq!((rig.router().pid(), tls(&rig)), (pid, address));
    assert!(connect(address, "b.test", &other).await.is_ok());
    rig.end().await;
}

#[tokio::test]
async fn tls_comes_and_goes_with_the_servers_options() {
    let own = pair("a.test");
    let mut rig = Rig::new().await;
    rig.route(dynos(&[app("one").await])).await;
    assert_eq!(rig.router().tls_address(), None);
    rig.server_goes();
    // Where somebody else listens: the router that runs goes on.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.options.tls = taken.local_addr().ok();
    let (access, _lines) = tokio::sync::mpsc::unbounded_channel();
    let start = hokku::router::Router::start_with(&rig.instance, rig.address, rig.options.clone(), access);
    assert!(soon(start).await.is_err());
    assert_eq!(rig.ask(GET).await.status(), 200);
    rig.options.tls = Some(([127, 0, 0, 1], 0).into());
    rig.server_comes().await;
    rig.router().certify(shown(&own, &[]));
    assert_eq!(client(&rig, "a.test", &own).await.ask(GET).await.status(), 200);
    let address = tls(&rig);
    rig.server_goes();
    rig.options.tls = None;
    rig.server_comes().await;
    assert_eq!(rig.ask(&get("/still")).await.status(), 200);
    until("the port is given up", || std::net::TcpStream::connect(address).is_err()).await;
    rig.end().await;
}

#[tokio::test]
async fn handshakes_are_bounded_in_time_and_number() {
    let own = pair("a.test");
    let settings = Settings { handshake: Duration::from_millis(500), handshakes: 3, ..Settings::default() };
    let rig = serving(settings, &own, None).await;
    assert_eq!(client(&rig, "a.test", &own).await.ask(GET).await.status(), 200);
    let closed = |mut stream: TcpStream| async move {
        let begun = Instant::now();
        let read = soon(stream.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        begun.elapsed()
    };
    let mut slow = TcpStream::connect(tls(&rig)).await.unwrap();
    slow.write_all(&[0x16, 3, 1]).await.unwrap();
    assert!(closed(slow).await > Duration::from_millis(300), "it has its time, and no more");
    let mut plain = TcpStream::connect(tls(&rig)).await.unwrap();
    plain.write_all(GET.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = soon(plain.read_to_end(&mut said)).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
    rig.end().await;

    let settings = Settings { handshake: Duration::from_secs(60), handshakes: 3, ..Settings::default() };
    let rig = serving(settings, &own, None).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(tls(&rig)).await.unwrap());
    }
    assert_eq!(client(&rig, "a.test", &own).await.ask(GET).await.status(), 200, "they keep nobody out");
    let oldest = silent.remove(0);
    assert!(closed(oldest).await < Duration::from_secs(20), "long before its time");
    rig.end().await;
}
