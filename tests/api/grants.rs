//! What was opened ends with the access that it was opened by, and with nothing else.
#![forbid(unsafe_code)]

use crate::server::{Server, until};
use bytes::Bytes;
use hokku::wire::attach::{Frame, PROTOCOL};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const HOST: &str = "http://paas.test:5000";

/// Within this, what was opened has ended.
const SOON: Duration = Duration::from_secs(3);

fn path(url: &Value) -> String {
    url.as_str().unwrap().strip_prefix(HOST).unwrap().to_owned()
}

/// `shop` with code, and the tokens of ann, who manages it, and bob, who may view and deploy.
async fn shop() -> (Server, String, String) {
    let server = Server::with_code().await;
    let mut tokens = Vec::new();
    for (name, permissions) in [("ann", json!(["manage", "deploy"])), ("bob", json!(["deploy"]))] {
        tokens.push(server.newcomer(&format!("{name}@example.com"), false).await);
        let body = json!({ "user": format!("{name}@example.com"), "permissions": permissions }).to_string();
        server.quietly("POST", "/teams/apps/shop/collaborators", &body).await;
    }
    let bob = tokens.pop().unwrap();
    (server, tokens.pop().unwrap(), bob)
}

async fn get(server: &Server, path: &str, accept: &str) -> Response<Incoming> {
    server.send_tcp(Server::request("GET", path).header("accept", accept).body(Full::default()).unwrap()).await
}

async fn log_session(server: &Server, token: &str) -> String {
    let (status, made) = server.as_with(token, "POST", "/apps/shop/log-sessions", r#"{"lines":0,"tail":true}"#).await;
    assert_eq!(status, 201, "{made}");
    path(&made["logplex_url"])
}

/// The rest, if it ends soon.
async fn rest(response: Response<Incoming>) -> String {
    let rest = tokio::time::timeout(SOON, response.into_body().collect()).await;
    String::from_utf8(rest.expect("it goes on").unwrap().to_bytes().to_vec()).unwrap()
}

/// Every way in which somebody loses what he had.
async fn take_away(server: &Server, way: &str, bob: &str) {
    match way {
        "removed from the app" => {
            server.quietly("DELETE", "/apps/shop/collaborators/bob@example.com", "").await;
        }
        "token revoked" => assert_eq!(server.as_with(bob, "DELETE", "/oauth/authorizations/~", "").await.0, 200),
        "new password" => {
            server.quietly("PATCH", "/accounts/bob@example.com", r#"{"password":"battery staple"}"#).await;
        }
        "account removed" => {
            server.quietly("DELETE", "/accounts/bob@example.com", "").await;
        }
        other => panic!("{other}"),
    }
}

const WAYS: [&str; 4] = ["removed from the app", "token revoked", "new password", "account removed"];

#[tokio::test]
async fn a_tail_ends_with_the_access_it_was_opened_by() {
    for way in WAYS {
        let (server, ann, bob) = shop().await;
        let session = log_session(&server, &bob).await;
        let plain = get(&server, &session, "text/plain").await;
        let events = get(&server, &session, "text/event-stream").await;
        let anns = get(&server, &log_session(&server, &ann).await, "text/plain").await;
        take_away(&server, way, &bob).await;
        let last = rest(plain).await;
        assert!(last.ends_with("heroku[logplex]: Your access to this log has ended\n"), "{way}: {last}");
        assert!(rest(events).await.ends_with("Your access to this log has ended\n\n"), "{way}");
        assert_eq!(get(&server, &session, "text/plain").await.status(), 404, "{way}: it can be opened again");
        let waited = tokio::time::timeout(Duration::from_millis(700), anns.into_body().collect()).await;
        assert!(waited.is_err(), "{way}: what ann follows has ended too");
    }
}

#[tokio::test]
async fn a_token_that_expires_or_gets_another_text_ends_what_it_opened() {
    let (server, _, bob) = shop().await;
    let (_, made) = server.as_with(&bob, "POST", "/oauth/authorizations", r#"{"expires_in":2}"#).await;
    let brief = made["access_token"]["token"].as_str().unwrap().to_owned();
    let (_, made) = server.as_with(&bob, "POST", "/oauth/authorizations", "{}").await;
    let lasting = made["access_token"]["token"].as_str().unwrap().to_owned();
    let tails = [
        get(&server, &log_session(&server, &brief).await, "text/plain").await,
        get(&server, &log_session(&server, &lasting).await, "text/plain").await,
    ];
    let again = format!("/oauth/authorizations/{}/actions/regenerate-tokens", made["id"].as_str().unwrap());
    assert_eq!(server.as_with(&bob, "POST", &again, "").await.0, 200);
    for tail in tails {
        assert!(rest(tail).await.contains("has ended"));
    }
}

async fn build(server: &Server, token: &str, attached: bool) -> Value {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Procfile", &b"web:x"[..]).unwrap();
    let (_, source) = server.as_with(token, "POST", "/apps/shop/sources", "").await;
    let url = &source["source_blob"]["put_url"];
    let put = Server::request("PUT", &path(url)).body(Full::from(tar.into_inner().unwrap())).unwrap();
    assert_eq!(server.send_tcp(put).await.status(), 200);
    let body = json!({ "source_blob": { "url": url } }).to_string();
    let request = Server::request("POST", "/apps/shop/builds")
        .header("authorization", format!("Bearer {token}"))
        .header("x-hokku-attached", if attached { "1" } else { "0" });
    let response = server.send_tcp(request.body(Full::from(body)).unwrap()).await;
    assert_eq!(response.status(), 201);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn the_output_of_a_build_ends_with_the_access_it_was_opened_by() {
    for attached in [true, false] {
        let (server, ann, bob) = shop().await;
        let built = build(&server, &bob, attached).await;
        let shown = format!("/apps/shop/builds/{}", built["id"].as_str().unwrap());
        let (_, seen) = server.as_with(&ann, "GET", &shown, "").await;
        assert_ne!(seen["output_stream_url"], built["output_stream_url"], "each has an address of his own");
        let bobs = get(&server, &path(&built["output_stream_url"]), "*/*").await;
        take_away(&server, "removed from the app", &bob).await;
        let last = rest(bobs).await;
        assert!(last.ends_with("\n !     Your access has ended, and with it this output.\n"), "{last}");
        assert_eq!(get(&server, &path(&built["output_stream_url"]), "*/*").await.status(), 404);
        // As when its reader goes away.
        if attached {
            until(async || server.quietly("GET", &shown, "").await["status"] == "failed").await;
        } else {
            assert_eq!(server.quietly("GET", &shown, "").await["status"], "pending");
            assert_eq!(get(&server, &path(&seen["output_stream_url"]), "*/*").await.status(), 200);
            server.quietly("DELETE", &shown, "").await;
        }
    }
}

async fn run(server: &Server, token: &str, more: &str) -> Value {
    let body = format!(r#"{{"command":"sleep 1000"{more}}}"#);
    let (status, dyno) = server.as_with(token, "POST", "/apps/shop/dynos", &body).await;
    assert_eq!(status, 201, "{dyno}");
    dyno
}

fn attach(path: &str) -> hyper::Request<Full<Bytes>> {
    let request = Server::request("GET", path).header("connection", "Upgrade").header("upgrade", PROTOCOL);
    request.body(Full::default()).unwrap()
}

async fn runs(server: &Server) -> usize {
    let dynos = server.quietly("GET", "/apps/shop/dynos?", "").await;
    dynos.as_array().unwrap().iter().filter(|dyno| dyno["type"] == "run").count()
}

#[tokio::test]
async fn one_off_dynos_end_with_the_access_they_were_begun_by() {
    let attached = format!(r#","attach":true,"attach_protocol":"{PROTOCOL}","tty":false"#);
    let (server, ann, bob) = shop().await;
    run(&server, &ann, "").await;
    run(&server, &bob, "").await;
    let waiting = path(&run(&server, &bob, &attached).await["attach_url"]);
    let met = run(&server, &bob, &attached).await;
    let response = server.send_tcp(attach(&path(&met["attach_url"]))).await;
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    assert_eq!(runs(&server).await, 4);
    let tail = get(&server, &log_session(&server, &bob).await, "text/plain").await;

    // He still sees it, but runs nothing there.
    let lowered = r#"{"permissions":["view"]}"#;
    server.quietly("PATCH", "/teams/apps/shop/collaborators/bob@example.com", lowered).await;
    let begun = Instant::now();
    let said = tokio::time::timeout(SOON, Frame::read(&mut stream)).await.expect("the client stays attached").unwrap();
    let ended = "your access to this app has ended, and with it what you ran there";
    assert_eq!(said, Some(Frame::Error(ended.to_owned())));
    until(async || runs(&server).await == 1).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(server.send_tcp(attach(&waiting)).await.status(), 422, "nobody is awaited any more");
    assert!(tokio::time::timeout(Duration::from_millis(700), tail.into_body().collect()).await.is_err());
    take_away(&server, "account removed", &bob).await;
    assert_eq!(runs(&server).await, 1, "what ann began goes on");
}

#[tokio::test]
async fn who_was_let_into_a_dyno_is_out_with_his_access() {
    for way in WAYS {
        let (server, _, bob) = shop().await;
        let body = format!(r#"{{"command":"cat","tty":false,"attach_protocol":"{PROTOCOL}"}}"#);
        let mut urls = Vec::new();
        for _ in 0..2 {
            let (status, dyno) = server.as_with(&bob, "POST", "/apps/shop/dynos/web.1", &body).await;
            assert_eq!(status, 201, "{dyno}");
            urls.push(path(&dyno["attach_url"]));
        }
        let response = server.send_tcp(attach(&urls[0])).await;
        assert_eq!(response.status(), 101);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        take_away(&server, way, &bob).await;
        let said =
            tokio::time::timeout(SOON, Frame::read(&mut stream)).await.expect("the client stays inside").unwrap();
        assert!(matches!(&said, Some(Frame::Error(text)) if text.contains("access to this app has ended")), "{said:?}");
        assert_eq!(server.send_tcp(attach(&urls[1])).await.status(), 404, "{way}: the door is still open");
        assert_eq!(server.quietly("GET", "/apps/shop/dynos/web.1", "").await["state"], "up", "the dyno goes on");
    }
}

#[tokio::test]
async fn a_revoked_token_ends_the_attached_dyno_and_not_the_detached_one() {
    let (server, _, bob) = shop().await;
    let attached = format!(r#","attach":true,"attach_protocol":"{PROTOCOL}","tty":false"#);
    run(&server, &bob, "").await;
    let waiting = path(&run(&server, &bob, &attached).await["attach_url"]);
    let met = run(&server, &bob, &attached).await;
    let response = server.send_tcp(attach(&path(&met["attach_url"]))).await;
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    take_away(&server, "token revoked", &bob).await;
    let said = tokio::time::timeout(SOON, Frame::read(&mut stream)).await.expect("the client stays attached").unwrap();
    assert!(matches!(said, Some(Frame::Error(_))), "{said:?}");
    assert_eq!(server.send_tcp(attach(&waiting)).await.status(), 404);
    until(async || runs(&server).await == 2).await;
}
