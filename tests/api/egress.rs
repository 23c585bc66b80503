//! Where an app's dynos may connect to.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;

#[tokio::test]
async fn egress_is_shown_and_changed() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/egress";
    server.ask("GET", path, "").await;
    server.ask("PATCH", path, r#"{"mode":"none"}"#).await;
    server.ask("PATCH", path, r#"{"allow":["10.0.0.0/8","192.0.2.7:5432","tcp/443","tcp/443"]}"#).await;
    server.ask("PATCH", path, r#"{"mode":"allow","allow":["udp/123"]}"#).await;
    server.ask("GET", path, "").await;
    server.ask("PATCH", path, r#"{"mode":"internet"}"#).await;
    server.ask("PATCH", path, r#"{"mode":"internet"}"#).await;
    let log = server.log().await;
    server.note(log);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_is_no_egress_changes_nothing() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/egress";
    server.quietly("PATCH", path, r#"{"mode":"none"}"#).await;
    for body in [
        "{}",
        r#"{"mode":"everything"}"#,
        r#"{"mode":"allow"}"#,
        r#"{"mode":"none","allow":["tcp/443"]}"#,
        r#"{"allow":[]}"#,
        r#"{"allow":["none"]}"#,
        r#"{"allow":["tcp/443","none"]}"#,
        r#"{"allow":["example.com:443"]}"#,
        r#"{"allow":["127.0.0.1"]}"#,
        r#"{"allow":["10.1.2.3/8"]}"#,
        r#"{"allow":"tcp/443"}"#,
    ] {
        server.ask("PATCH", path, body).await;
    }
    server.ask("PATCH", "/apps/nope/egress", r#"{"mode":"none"}"#).await;
    server.ask("GET", path, "").await;
    assert_said!(server.transcript());
}
