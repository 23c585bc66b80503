//! Where an app's log is sent; what is sent is shown in the module's own tests.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use bytes::Bytes;
use hokku::store;
use http_body_util::Full;

#[tokio::test]
async fn drains_are_added_listed_and_removed() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/log-drains";
    let made = server.ask("POST", path, r#"{"url":"syslog+tls://logs.example.com:6514"}"#).await;
    server.quietly("POST", path, r#"{"url":"https://u:p@logs.example.com/in?a=b"}"#).await;
    server.ask_with("GET", path, "", &[("range", "url ..")]).await;
    server.ask("GET", &format!("{path}/{}", made["token"].as_str().unwrap()), "").await;
    server.ask("DELETE", &format!("{path}/{}", made["id"].as_str().unwrap()), "").await;
    server.ask("DELETE", &format!("{path}/https%3A%2F%2Fu%3Ap%40logs.example.com%2Fin%3Fa%3Db"), "").await;
    server.ask("GET", path, "").await;
    server.ask("GET", &format!("{path}/d.1"), "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn drains_are_few_and_each_is_another() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/log-drains";
    for url in ["logs.example.com", "ftp://logs.example.com", "syslog://a/b", ""] {
        server.ask("POST", path, &format!(r#"{{"url":"{url}"}}"#)).await;
    }
    server.ask("POST", path, "{}").await;
    for number in 1..=5 {
        server.quietly("POST", path, &format!(r#"{{"url":"syslog://logs.example.com:{number}"}}"#)).await;
    }
    server.ask("POST", path, r#"{"url":"syslog://logs.example.com:1"}"#).await;
    server.ask("POST", path, r#"{"url":"syslog://logs.example.com:6"}"#).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_drains_password_is_nowhere_on_the_disk() {
    let server = Server::with_app().await;
    let body = r#"{"url":"https://user:S3cr3tWord@logs.example.com/"}"#;
    let request = Server::request("POST", "/apps/shop/log-drains").body(Full::<Bytes>::from(body)).unwrap();
    assert_eq!(server.send(request).await.status(), 201);
    let kept: Result<_, store::StoreError> = server.control.store.read(store::drains::all).await;
    assert_eq!(kept.unwrap()[0].url.credentials.as_deref(), Some("user:S3cr3tWord"));
    for entry in walkdir::WalkDir::new(server.root()) {
        let path = entry.unwrap().into_path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(10).any(|window| window == b"S3cr3tWord"), "{}", path.display());
    }
}
