//! Certificates of apps: brought, tied to host names, shown without their keys.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use hokku::store::{self, StoreError};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

/// A self-signed certificate and its key.
fn pair(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names[0]);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn bring((chain, key): &(String, String)) -> String {
    json!({ "certificate_chain": chain, "private_key": key }).to_string()
}

const PATH: &str = "/apps/shop/sni-endpoints";

fn at(endpoint: &Value) -> String {
    format!("{PATH}/{}", endpoint["name"].as_str().unwrap())
}

#[tokio::test]
async fn a_certificate_is_kept_tied_to_its_names_changed_and_removed() {
    let mut server = Server::with_app().await;
    server.quietly("POST", "/apps/shop/domains", r#"{"hostname":"www.example.com"}"#).await;
    server.ask("GET", PATH, "").await;
    let first = pair(&["www.example.com", "*.example.org"]);
    let made = server.ask("POST", PATH, &bring(&first)).await;
    assert_eq!(made["certificate_chain"], first.0);
    server.note("the domain that was there, and one that comes later:");
    server.ask("GET", "/apps/shop/domains/www.example.com", "").await;
    server.ask("POST", "/apps/shop/domains", r#"{"hostname":"a.example.org","sni_endpoint":null}"#).await;
    server.ask("POST", "/apps/shop/domains", r#"{"hostname":"a.b.example.org"}"#).await;
    server.note("another one, whose name only the second domain has:");
    let second = pair(&["*.example.org"]);
    server.quietly("POST", PATH, &bring(&second)).await;
    let domain = server.quietly("GET", "/apps/shop/domains/a.example.org", "").await;
    assert_eq!(domain["sni_endpoint"]["id"], made["id"], "it keeps what it has");

    server.note("renewed, and no more for www.example.com:");
    let renewed = pair(&["*.example.org", "shop.localhost"]);
    let changed = server.ask("PATCH", &at(&made), &bring(&renewed)).await;
    assert_eq!((&changed["id"], &changed["certificate_chain"]), (&made["id"], &Value::from(renewed.0)));
    server.ask_with("GET", "/apps/shop/domains", "", &[("range", "hostname ..")]).await;

    server.note("what the store has beside what is shown:");
    let kept: Result<_, StoreError> = server.control.store.read(store::sni_endpoints::all).await;
    let keys: Vec<String> = kept.unwrap().into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, [renewed.1.clone(), second.1.clone()]);
    for file in ["db.sqlite", "db.sqlite-wal"] {
        let bytes = std::fs::read(server.root().join(file)).unwrap_or_default();
        for (_, key) in [&first, &second] {
            let secret = key.lines().nth(1).unwrap().as_bytes();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{file}");
        }
    }

    server.ask("DELETE", &format!("{PATH}/{}", made["id"].as_str().unwrap()), "").await;
    server.ask("GET", &at(&made), "").await;
    server.ask("GET", "/apps/shop/domains/a.example.org", "").await;
    let log = server.log().await;
    server.note(log);
    server.note("with its app all of it goes:");
    server.quietly("DELETE", "/apps/shop", "").await;
    let left: Result<_, StoreError> = server.control.store.read(store::sni_endpoints::all).await;
    assert!(left.unwrap().is_empty());
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_domain_gets_another_certificate_or_none() {
    let mut server = Server::with_app().await;
    let one = server.quietly("POST", PATH, &bring(&pair(&["www.example.com"]))).await;
    let two = server.quietly("POST", PATH, &bring(&pair(&["*.example.com"]))).await;
    server.quietly("POST", "/apps", r#"{"name":"other"}"#).await;
    let foreign = server.quietly("POST", "/apps/other/sni-endpoints", &bring(&pair(&["www.example.com"]))).await;
    let body =
        |endpoint: &Value| json!({ "hostname": "www.example.com", "sni_endpoint": endpoint["name"] }).to_string();
    let made = server.quietly("POST", "/apps/shop/domains", &body(&two)).await;
    assert_eq!(made["sni_endpoint"], json!({ "id": two["id"], "name": two["name"] }));
    let path = "/apps/shop/domains/www.example.com";
    let change = |endpoint: &Value| json!({ "sni_endpoint": endpoint }).to_string();
    let changed = server.quietly("PATCH", path, &change(&one["id"])).await;
    assert_eq!(changed["sni_endpoint"]["name"], one["name"]);
    let shown = server.quietly("GET", &at(&one), "").await;
    assert_eq!(shown["domains"], json!([made["id"]]));
    let changed = server.quietly("PATCH", path, &change(&Value::Null)).await;
    assert_eq!(changed["sni_endpoint"], Value::Null);
    server.ask("PATCH", path, &change(&foreign["name"])).await;
    server.ask("GET", &format!("{PATH}/{}", foreign["name"].as_str().unwrap()), "").await;
    server
        .ask(
            "POST",
            "/apps/shop/domains",
            &json!({ "hostname": "www.example.org", "sni_endpoint": one["name"] }).to_string(),
        )
        .await;
    server.ask("PATCH", "/apps/shop/domains/shop.localhost", &change(&one["name"])).await;
    server.ask("PATCH", "/apps/shop/domains/shop.localhost", &change(&"nothing".into())).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_in_words_and_nothing_is_kept() {
    let mut server = Server::with_app().await;
    let (chain, key) = pair(&["www.example.com"]);
    let (other, other_key) = pair(&["www.example.com"]);
    for (chain, key) in [
        ("", &*key),
        ("nonsense", &*key),
        (&*key, &*key),
        (&*chain, ""),
        (&*chain, "nonsense"),
        (&*chain, &*other_key),
        (&*format!("{chain}{other}"), &*key),
        (&*chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"),
        (&*"x".repeat(100_000), &*key),
    ] {
        server.ask("POST", PATH, &bring(&(chain.to_owned(), key.to_owned()))).await;
    }
    server.ask("POST", PATH, "{}").await;
    server.ask("POST", PATH, r#"{"certificate_chain":1,"private_key":[]}"#).await;
    server.ask("PATCH", &format!("{PATH}/nothing"), &bring(&(chain, key))).await;
    server.ask("DELETE", &format!("{PATH}/nothing"), "").await;
    server.ask("POST", "/apps/shop/acm", "{}").await;
    server.ask("GET", PATH, "").await;
    assert_said!(server.transcript());
}
