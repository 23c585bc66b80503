//! Config vars.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use serde_json::json;

#[tokio::test]
async fn config_vars_are_set_and_unset_and_each_change_is_a_release() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/config-vars";
    server.ask("GET", path, "").await;
    server.ask("PATCH", path, r#"{"B":"2","A":"first secret"}"#).await;
    server.ask_with("GET", "/apps/shop/releases", "", &[("range", "version ..; order=desc,max=1")]).await;
    server.ask("PATCH", path, r#"{"A":"first secret","GONE":null}"#).await;
    server.ask("PATCH", path, "{}").await;
    server.ask("PATCH", path, r#"{"A":"second secret","B":null,"EMPTY":""}"#).await;
    for version in 2..=5 {
        server.ask("GET", &format!("/apps/shop/releases/{version}/config-vars"), "").await;
    }
    let log = server.log().await;
    assert!(!log.contains("secret"), "{log}");
    server.note(log);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_can_not_be_a_config_var_changes_nothing() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/config-vars";
    server.quietly("PATCH", path, r#"{"KEPT":"1"}"#).await;
    for body in [
        r#"{"KEPT":"2","1A":"x"}"#,
        r#"{"A B":"x"}"#,
        r#"{"":"x"}"#,
        r#"{"PORT":"80"}"#,
        r#"{"A":"x\u0000y"}"#,
        r#"{"A":7}"#,
        r#"{"A":{"b":"c"}}"#,
        r#"["A"]"#,
        r#"{"A":"x""#,
        "A=x",
        "\u{0}",
    ] {
        server.ask("PATCH", path, body).await;
    }
    server.ask("PATCH", path, &json!({ "BIG": "x".repeat(65_536) }).to_string()).await;
    server.ask("PATCH", path, &json!({ "BIG": "x".repeat(1 << 20) }).to_string()).await;
    server.ask("PATCH", "/apps/nope/config-vars", "{}").await;
    server.ask("GET", path, "").await;
    assert_said!(server.transcript());
}
