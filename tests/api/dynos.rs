//! Dynos: scaled, shown, restarted, stopped, run and attached.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::{Server, altered};
use bytes::Bytes;
use hokku::store::{self, StoreError};
use hokku::wire::attach::{Frame, PROTOCOL};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn an_app_is_scaled() {
    let mut server = Server::with_code().await;
    let path = "/apps/shop/formation";
    server.ask("GET", path, "").await;
    let updates =
        r#"{"updates":[{"type":"web","quantity":"2"},{"type":"worker","quantity":"+1","size":"standard-2x"}]}"#;
    server.ask("PATCH", path, updates).await;
    server.ask("PATCH", path, r#"{"updates":[{"type":"web","quantity":"-1"},{"type":"worker","quantity":0}]}"#).await;
    server.ask("PATCH", "/apps/shop/formation/web", r#"{"quantity":3,"dyno_size":{"name":"BASIC"}}"#).await;
    server.ask("GET", "/apps/shop/formation/worker", "").await;
    server.ask("PATCH", path, r#"{"updates":[{"type":"web","quantity":3}]}"#).await;
    server.note(server.log().await);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_can_not_be_scaled_changes_nothing() {
    let mut server = Server::with_code().await;
    for row in [
        r#"{"type":"nope","quantity":1}"#,
        r#"{"type":"no pe","quantity":1}"#,
        r#"{"type":"web","quantity":101}"#,
        r#"{"type":"web","quantity":-1}"#,
        r#"{"type":"web","quantity":1.5}"#,
        r#"{"type":"web","quantity":"many"}"#,
        r#"{"type":"web","quantity":"99999999999"}"#,
        r#"{"type":"web","quantity":true}"#,
        r#"{"type":"web","size":"huge"}"#,
        r#"{"type":"release","quantity":1}"#,
        r#"{"type":"worker","quantity":1}"#,
        r#"{"quantity":1}"#,
    ] {
        let before = server.quietly("GET", "/apps/shop/formation", "").await;
        server
            .ask("PATCH", "/apps/shop/formation", &format!(r#"{{"updates":[{{"type":"worker","quantity":9}},{row}]}}"#))
            .await;
        assert_eq!(server.quietly("GET", "/apps/shop/formation", "").await, before, "{row}");
    }
    server.ask("PATCH", "/apps/shop/formation", "{}").await;
    server.ask("GET", "/apps/shop/formation/nope", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn dynos_are_shown_restarted_and_stopped() {
    let mut server = Server::with_code().await;
    server.quietly("PATCH", "/apps/shop/formation", r#"{"updates":[{"type":"web","quantity":2}]}"#).await;
    server.quiet().await;
    let dynos = server.ask("GET", "/apps/shop/dynos", "").await;
    let id = dynos[0]["id"].as_str().unwrap().to_owned();
    server.ask("GET", "/apps/shop/dynos/web.2", "").await;
    for (method, path) in [
        ("DELETE", format!("dynos/{id}")),
        ("DELETE", "dynos".to_owned()),
        ("DELETE", "dynos/web.2".to_owned()),
        ("DELETE", "formations/web".to_owned()),
        ("POST", "dynos/web.1/actions/stop".to_owned()),
        ("POST", "formations/web/actions/stop".to_owned()),
        ("GET", "dynos/web.3".to_owned()),
        ("DELETE", "dynos/web.3".to_owned()),
        ("DELETE", "dynos/nope".to_owned()),
        ("DELETE", "formations/nope".to_owned()),
        ("POST", "dynos/web.3/actions/stop".to_owned()),
        ("POST", "formations/nope/actions/stop".to_owned()),
    ] {
        server.ask(method, &format!("/apps/shop/{path}"), "").await;
    }
    let app = server.app().await;
    let epochs: Result<_, StoreError> = server.control.store.read(move |tx| store::epochs::get(tx, app)).await;
    server.note(format_args!(
        "epochs: {:?}",
        epochs.unwrap().into_iter().map(|(name, n)| format!("{name}:{n}")).collect::<Vec<_>>()
    ));
    assert_said!(server.transcript());
}

#[tokio::test]
async fn another_size_replaces_the_dynos_of_that_type() {
    let server = Server::with_code().await;
    server.quietly("PATCH", "/apps/shop/formation/web", r#"{"size":"standard-2x"}"#).await;
    server.quietly("PATCH", "/apps/shop/formation/web", r#"{"size":"standard-2x"}"#).await;
    let app = server.app().await;
    let epochs: Result<_, StoreError> = server.control.store.read(move |tx| store::epochs::get(tx, app)).await;
    assert_eq!(epochs.unwrap(), [("web.1".parse().unwrap(), 1)].into());
}

#[tokio::test]
async fn one_off_dynos_are_asked_for() {
    let mut server = Server::with_code().await;
    let path = "/apps/shop/dynos";
    let env = r#"{"TERM":"xterm","COLUMNS":120}"#;
    server.ask("POST", path, &format!(r#"{{"command":"bash","attach":false,"size":"basic","env":{env}}}"#)).await;
    server.ask("POST", path, r#"{"command":"worker --once","attach":false}"#).await;
    server.ask("POST", path, &format!(r#"{{"command":"bash","attach":true,"attach_protocol":"{PROTOCOL}"}}"#)).await;
    for body in [
        r#"{"command":"bash","attach":true}"#,
        r#"{"command":" "}"#,
        r#"{"attach":false}"#,
        r#"{"command":"bash","size":"huge"}"#,
        r#"{"command":"bash","env":{"A B":"x"}}"#,
        r#"{"command":"bash","env":["A"]}"#,
    ] {
        server.ask("POST", path, body).await;
    }
    server.quietly("POST", "/apps", r#"{"name":"empty"}"#).await;
    server.ask("POST", "/apps/empty/dynos", r#"{"command":"bash"}"#).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_client_is_attached_once_and_speaks_frames() {
    let server = Server::with_code().await;
    let body = format!(r#"{{"command":"cat","attach":true,"tty":false,"attach_protocol":"{PROTOCOL}"}}"#);
    let dyno = server.quietly("POST", "/apps/shop/dynos", &body).await;
    let path = dyno["attach_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    let upgrade = |path: &str, protocol: &str| {
        let request =
            Server::request("GET", path).header("connection", "keep-alive, Upgrade").header("upgrade", protocol);
        request.body(Full::<Bytes>::default()).unwrap()
    };

    assert_eq!(server.send_tcp(upgrade(&altered(path), PROTOCOL)).await.status(), 404);
    assert_eq!(server.send_tcp(upgrade(path, "websocket")).await.status(), 400);
    let plain = Server::request("GET", path).body(Full::default()).unwrap();
    assert_eq!(server.send_tcp(plain).await.status(), 400);

    let response = server.send_tcp(upgrade(path, PROTOCOL)).await;
    assert_eq!((response.status().as_u16(), &response.headers()["upgrade"]), (101, &PROTOCOL.parse().unwrap()));
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(&Frame::Stdin(b"hello".into()).encode()).await.unwrap();
    stream.write_all(&Frame::StdinEnd.encode()).await.unwrap();
    let said = Frame::read(&mut stream).await.unwrap();
    assert_eq!(said, Some(Frame::Stdout(b"ran cat; read hello".into())));
    assert_eq!(Frame::read(&mut stream).await.unwrap(), Some(Frame::Exit(7)));
    assert_eq!(Frame::read(&mut stream).await.unwrap(), None);

    assert_eq!(server.send_tcp(upgrade(path, PROTOCOL)).await.status(), 422);
}

#[tokio::test]
async fn a_client_is_let_into_a_dyno_once() {
    let mut server = Server::with_code().await;
    server.ask("POST", "/apps/shop/dynos/web.9", r#"{"command":"bash"}"#).await;
    server.ask("POST", "/apps/shop/dynos/web.1", r#"{"command":" "}"#).await;
    server.ask("POST", "/apps/shop/dynos/web.1", r#"{"command":"bash"}"#).await;
    let body = format!(r#"{{"command":"cat","tty":false,"attach_protocol":"{PROTOCOL}"}}"#);
    let dyno = server.quietly("POST", "/apps/shop/dynos/web.1", &body).await;
    assert_eq!(dyno["id"], server.quietly("GET", "/apps/shop/dynos/web.1", "").await["id"]);
    let path = dyno["attach_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    let upgrade = || {
        let request = Server::request("GET", path).header("connection", "Upgrade").header("upgrade", PROTOCOL);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let response = server.send_tcp(upgrade()).await;
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(&Frame::StdinEnd.encode()).await.unwrap();
    assert_eq!(Frame::read(&mut stream).await.unwrap(), Some(Frame::Stdout(b"ran cat; read ".into())));
    assert_eq!(server.send_tcp(upgrade()).await.status(), 422);
    // Who sees the app sees no such way in, and its dyno is as before.
    assert_eq!(server.quietly("GET", "/apps/shop/dynos/web.1", "").await["attach_url"], serde_json::Value::Null);
    assert_said!(server.transcript());
}
