//! Host names of apps' own.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;

#[tokio::test]
async fn domains_are_added_listed_and_removed() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/domains";
    server.ask("GET", path, "").await;
    let made = server.ask("POST", path, r#"{"hostname":"WWW.Example.com","sni_endpoint":null}"#).await;
    server.quietly("POST", path, r#"{"hostname":"*.example.org"}"#).await;
    server.ask("GET", "/apps/shop/domains/www.example.com", "").await;
    server.ask("GET", "/apps/shop/domains/shop.localhost", "").await;
    server.ask("PATCH", "/apps/shop/domains/www.example.com", r#"{"sni_endpoint":null}"#).await;
    server.ask("PATCH", "/apps/shop/domains/www.example.com", r#"{"sni_endpoint":"tokyo-1"}"#).await;
    server.ask_with("GET", path, "", &[("range", "hostname ..; max=2")]).await;
    server.ask("DELETE", &format!("/apps/shop/domains/{}", made["id"].as_str().unwrap()), "").await;
    server.ask("DELETE", "/apps/shop/domains/www.example.com", "").await;
    let log = server.log().await;
    server.note(log);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_domain_is_one_apps_and_not_the_servers() {
    let mut server = Server::with_app().await;
    server.quietly("POST", "/apps/shop/domains", r#"{"hostname":"www.example.com"}"#).await;
    server.quietly("POST", "/apps", r#"{"name":"other"}"#).await;
    server.ask("POST", "/apps/other/domains", r#"{"hostname":"www.example.com"}"#).await;
    server.ask("POST", "/apps/shop/domains", r#"{"hostname":"www.example.com"}"#).await;
    for hostname in ["shop.localhost", "a.b.localhost", "*.com", "10.0.0.1", "http://example.com", ""] {
        server.ask("POST", "/apps/shop/domains", &format!(r#"{{"hostname":"{hostname}"}}"#)).await;
    }
    server.ask("POST", "/apps/shop/domains", r#"{"hostname":"a.example.com","sni_endpoint":"tokyo-1"}"#).await;
    server.ask("POST", "/apps/shop/domains", "{}").await;
    server.ask("DELETE", "/apps/other/domains/www.example.com", "").await;
    server.ask("DELETE", "/apps/shop/domains/shop.localhost", "").await;
    server.note("with its app a domain goes too:");
    server.quietly("DELETE", "/apps/shop", "").await;
    server.ask("POST", "/apps/other/domains", r#"{"hostname":"www.example.com"}"#).await;
    assert_said!(server.transcript());
}
