//! Apps: made, found, changed, destroyed; lists and what is asked beside an app.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::{Server, until};

#[tokio::test]
async fn features_are_switched_on_and_off() {
    let mut server = Server::with_app().await;
    server.ask("GET", "/apps/shop/features", "").await;
    let path = "/apps/shop/features/runtime-dyno-metadata";
    server.ask("PATCH", path, r#"{"enabled":true}"#).await;
    assert_eq!(server.quietly("GET", path, "").await["enabled"], true);
    server.quietly("PATCH", path, r#"{"enabled":true}"#).await;
    server.quietly("PATCH", path, r#"{"enabled":false}"#).await;
    assert_eq!(server.quietly("GET", path, "").await["enabled"], false);
    server.ask("PATCH", path, r#"{"enabled":"yes"}"#).await;
    server.ask("PATCH", path, "{}").await;
    server.ask("PATCH", "/apps/shop/features/preboot", r#"{"enabled":true}"#).await;
    server.ask("GET", "/account/features", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn an_app_is_made_found_changed_and_destroyed() {
    let mut server = Server::start().await;
    let app = server.ask("POST", "/apps", r#"{"name":"shop","region":"local","stack":"host"}"#).await;
    let id = app["id"].as_str().unwrap().to_owned();
    server.ask("GET", "/apps/shop", "").await;
    assert_eq!(server.quietly("GET", &format!("/apps/{id}"), "").await, server.quietly("GET", "/apps/shop", "").await);
    server.ask("PATCH", "/apps/shop", r#"{"name":"store"}"#).await;
    server.ask("GET", "/apps/shop", "").await;
    server.ask("PATCH", "/apps/store", r#"{"maintenance":true,"build_stack":"host"}"#).await;
    server.ask("DELETE", "/apps/store", "").await;
    server.ask("GET", "/apps/store", "").await;
    server.ask("GET", "/apps", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn an_app_begins_with_two_releases_and_two_by_two_lines_in_its_log() {
    let server = Server::with_app().await;
    insta::assert_snapshot!(server.log().await, @r"
    app[api]: Initial release by user admin@localhost
    app[api]: Release v1 created by user admin@localhost
    app[api]: Enable Logplex by user admin@localhost
    app[api]: Release v2 created by user admin@localhost
    ");
}

#[tokio::test]
async fn names_are_invented_or_checked() {
    let mut server = Server::with_app().await;
    let app = server.quietly("POST", "/apps", "").await;
    server.note(format_args!("invented: {}", app["name"].as_str().unwrap()));
    for name in ["shop", "ab", "Shop", "1shop", "shop-", "sh_op", "git", &"a".repeat(31), "übung"] {
        server.ask("POST", "/apps", &format!(r#"{{"name":"{name}"}}"#)).await;
    }
    server.ask("PATCH", "/apps/shop", r#"{"name":"Shop"}"#).await;
    server.ask("PATCH", "/apps/shop", &format!(r#"{{"name":{}}}"#, app["name"])).await;
    server.ask("PATCH", "/apps/shop", r#"{"build_stack":"heroku-24"}"#).await;
    server.ask("POST", "/apps", r#"{"name":"other","stack":{"name":"cnb"}}"#).await;
    server.ask("POST", "/apps", r#"{"name":"other","region":"eu"}"#).await;
    server.ask("POST", "/apps", r#"{"name":7}"#).await;
    server.ask("POST", "/apps", r#"{"name":"#).await;
    server.ask("GET", "/apps/%ff", "").await;
    assert_eq!(server.quietly("GET", "/apps", "").await.as_array().unwrap().len(), 2);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_clients_ask_for_beside_an_app() {
    let mut server = Server::with_app().await;
    for path in [
        "/apps/shop/addons",
        "/apps/shop/addon-attachments",
        "/apps/shop/collaborators",
        "/apps/shop/domains",
        "/apps/shop/features",
        "/apps/shop/features/runtime-heroku-exec",
        "/apps/shop/pipeline-couplings",
        "/apps/shop/available-stacks",
        "/apps/nope/addons",
        "/stacks",
        "/stacks/host",
        "/stacks/heroku-24",
        "/regions",
        "/regions/local",
        "/regions/us",
        "/account/features",
        "/account/features/x",
        "/addons",
        "/addon-attachments",
        "/teams",
        "/spaces",
    ] {
        server.ask("GET", path, "").await;
    }
    assert_said!(server.transcript());
}

#[tokio::test]
async fn lists_come_in_pages() {
    let mut server = Server::with_app().await;
    for name in ["bakery", "atelier", "cinema"] {
        server.quietly("POST", "/apps", &format!(r#"{{"name":"{name}"}}"#)).await;
    }
    let names = async |server: &mut Server, range: &str| {
        let rows = server.ask_with("GET", "/apps", "", &[("range", range)]).await;
        let names: Vec<String> = rows.as_array().into_iter().flatten().map(|row| row["name"].to_string()).collect();
        let heads: Vec<String> = server
            .transcript()
            .lines()
            .filter(|line| line.starts_with("=>") || line.starts_with("   content") || line.starts_with("   next"))
            .map(|line| line.trim().to_owned())
            .collect();
        format!("{range:36} {heads:?} {}", names.join(" "))
    };
    let mut said = Vec::new();
    for range in [
        "",
        "name ..; max=3",
        "name ]cinema..; max=3",
        "name ..; order=desc,max=1",
        "name ]shop..; max=2, order=desc",
        "name b..c; max=1000;",
        "id ]ffffffff-ffff-ffff-ffff-ffffffffffff..",
        "nonsense ..; ;",
        "name ..; max=many",
    ] {
        said.push(names(&mut server, range).await);
    }
    assert_said!(said.join("\n"));
}

#[tokio::test]
async fn a_destroyed_app_leaves_no_file() {
    let server = Server::with_code().await;
    let app = server.app().await;
    let paths = [format!("repos/{app}.git/HEAD"), format!("cache/{app}/x"), format!("sources/{app}.tar.zst")];
    let mut paths = paths.map(|path| server.root().join(path)).to_vec();
    for path in &paths {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    for folder in ["slugs", "trees", "logs"] {
        paths.extend(std::fs::read_dir(server.root().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert_eq!(paths.len(), 6, "a slug, its tree and a log besides: {paths:?}");
    server.quietly("DELETE", "/apps/shop", "").await;
    until(async || paths.iter().all(|path| !path.exists())).await;
}

#[tokio::test]
async fn what_a_crash_left_of_a_destroyed_app_goes_at_the_next_start() {
    let server = Server::with_app().await;
    let (kept, gone) = (server.app().await.0, uuid::Uuid::new_v4());
    let path = |app: uuid::Uuid| server.root().join(format!("repos/{app}.git"));
    for app in [kept, gone] {
        std::fs::create_dir_all(path(app)).unwrap();
    }
    hokku::control::apps::sweep(&server.control).await.unwrap();
    assert!(path(kept).exists() && !path(gone).exists());
}
