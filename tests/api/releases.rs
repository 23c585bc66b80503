//! Releases and slugs.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;

#[tokio::test]
async fn releases_are_listed_found_and_gone_back_to() {
    let mut server = Server::with_code().await;
    server.quietly("PATCH", "/apps/shop/config-vars", r#"{"A":"1"}"#).await;
    server.quiet().await;
    server.deploy("ffffffffffff").await;
    server.ask_with("GET", "/apps/shop/releases", "", &[("range", "version ..; max=2, order=desc")]).await;
    let third = server.ask("GET", "/apps/shop/releases/3", "").await;
    let id = third["id"].as_str().unwrap();
    let output = third["output_stream_url"].as_str().unwrap().strip_prefix("http://paas.test:5000").unwrap();
    server.ask_tcp("GET", output, &[]).await;
    for which in ["v3", id] {
        assert_eq!(server.quietly("GET", &format!("/apps/shop/releases/{which}"), "").await, third);
    }
    server.ask("POST", "/apps/shop/releases", &format!(r#"{{"release":"{id}"}}"#)).await;
    server.quiet().await;
    server.ask("GET", "/apps/shop/releases/current", "").await;
    server.ask("GET", "/apps/shop/releases/6/config-vars", "").await;
    server.ask("POST", "/apps/shop/releases", r#"{"release":4}"#).await;
    server.note(server.log().await);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_slug_is_shown_and_released_again() {
    let mut server = Server::with_code().await;
    let release = server.quietly("GET", "/apps/shop/releases/3", "").await;
    let slug = release["slug"]["id"].as_str().unwrap().to_owned();
    server.ask("GET", &format!("/apps/shop/slugs/{slug}"), "").await;
    server
        .ask(
            "POST",
            "/apps/shop/releases",
            &format!(r#"{{"slug":"{slug}","description":"Again\nwith\u0007 feeling"}}"#),
        )
        .await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_can_not_be_released_is_refused() {
    let mut server = Server::with_code().await;
    server.quietly("POST", "/apps", r#"{"name":"other"}"#).await;
    let release = server.quietly("GET", "/apps/shop/releases/3", "").await;
    let (id, slug) = (release["id"].as_str().unwrap().to_owned(), release["slug"]["id"].as_str().unwrap().to_owned());
    for path in ["0", "99", "vx", "-1", "99999999999", &uuid::Uuid::nil().to_string()] {
        server.ask("GET", &format!("/apps/shop/releases/{path}"), "").await;
    }
    for body in [
        r#"{"release":"2"}"#.to_owned(),
        r#"{"release":"99"}"#.to_owned(),
        r#"{"release":{}}"#.to_owned(),
        "{}".to_owned(),
        format!(r#"{{"release":"{id}","slug":"{slug}"}}"#),
        r#"{"slug":"x"}"#.to_owned(),
    ] {
        server.ask("POST", "/apps/shop/releases", &body).await;
    }
    server.note("another app's release and slug:");
    server.ask("GET", &format!("/apps/other/releases/{id}"), "").await;
    server.ask("GET", &format!("/apps/other/slugs/{slug}"), "").await;
    server.ask("POST", "/apps/other/releases", &format!(r#"{{"slug":"{slug}"}}"#)).await;
    server.ask("POST", "/apps/other/releases", &format!(r#"{{"release":"{id}"}}"#)).await;
    assert_said!(server.transcript());
}
