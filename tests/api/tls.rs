//! One port for plain HTTP, HTTPS and the rendezvous of Heroku's CLI.
#![forbid(unsafe_code)]

use crate::server::{Server, altered};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

async fn connect(server: &Server) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.root().join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// All that the server says until it closes the connection, however it does.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

async fn token(server: &Server) -> String {
    let made = server.quietly("POST", "/oauth/authorizations", "{}").await;
    made["access_token"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn answers_over_tls_name_https_addresses() {
    let server = Server::with_app().await;
    let token = token(&server).await;
    let mut stream = connect(&server).await;
    let request = format!(
        "GET /apps/shop HTTP/1.1\r\nHost: paas.test:5000\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200 OK") && said.contains("https://paas.test:5000/shop.git"), "{said}");
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /apps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 401"), "TLS is no permission");
}

/// The secret at which a new one-off dyno waits.
async fn waiting(server: &Server, more: &str) -> String {
    let body = format!(r#"{{"command":"cat","attach":true{more}}}"#);
    let dyno = server.quietly("POST", "/apps/shop/dynos", &body).await;
    dyno["attach_url"].as_str().unwrap().strip_prefix("rendezvous://paas.test:5000/").unwrap().to_owned()
}

#[tokio::test]
async fn a_client_meets_its_dyno_once() {
    let server = Server::with_code().await;
    let secret = waiting(&server, r#","force_no_tty":true"#).await;
    for wrong in [altered(&secret), "0".repeat(96), format!("{}{}", &secret[32..], &secret[..32])] {
        let mut stream = connect(&server).await;
        stream.write_all(wrong.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{wrong}");
    }
    let mut stream = connect(&server).await;
    stream.write_all(format!("{secret}\r\n").as_bytes()).await.unwrap();
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"rendezvous\r\n");
    stream.write_all(b"hello\x04").await.unwrap();
    assert_eq!(rest(&mut stream).await, "ran cat; read hello");
    // What crosses the end of the dyno must not make the client's system say that the connection was reset.
    for late in [b"late", b"more"] {
        stream.write_all(late).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    let mut stream = connect(&server).await;
    stream.write_all(format!("{secret}\r\n").as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("rendezvous\r\n !     Can't attach: "), "{said}");
}

#[tokio::test]
async fn clients_that_do_not_end_their_secret_are_understood() {
    let server = Server::with_code().await;
    let secret = waiting(&server, r#","force_no_tty":true"#).await;
    let mut stream = connect(&server).await;
    stream.write_all(secret.as_bytes()).await.unwrap();
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.write_all(b"one\x04two\x04").await.unwrap();
    assert_eq!(rest(&mut stream).await, "ran cat; read one\u{4}two");
}

#[tokio::test]
async fn names_of_buildpacks_are_looked_up_by_everybody() {
    let mut server = Server::start().await;
    server.ask_tcp("GET", "/buildpacks/heroku%2Fnodejs", &[]).await;
    server.ask_tcp("GET", "/buildpacks/heroku%2Fcobol", &[]).await;
    server.ask_tcp("GET", "/buildpacks/heroku%2Fnodejs/revisions", &[]).await;
    let named = server.ask_tcp("GET", "/buildpacks?in[name][]=python", &[]).await;
    assert_eq!(named.as_array().unwrap().len(), 1);
    crate::assert_said!(server.transcript());
}
