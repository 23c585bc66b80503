//! From a source to a build, its output, its buildpacks.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::{Server, altered, until};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const HOST: &str = "http://paas.test:5000";

/// A place for a source: its path.
async fn place(server: &Server) -> String {
    let source = server.quietly("POST", "/sources", "").await;
    source["source_blob"]["put_url"].as_str().unwrap().strip_prefix(HOST).unwrap().to_owned()
}

/// The source of an app.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [("Procfile", "web: node server.js\n"), ("server.js", "// serves\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A source that is there: its URL.
async fn uploaded(server: &Server) -> String {
    let path = place(server).await;
    let put = Server::request("PUT", &path).body(Full::from(archive())).unwrap();
    assert_eq!(server.send_tcp(put).await.status(), 200);
    format!("{HOST}{path}")
}

/// A slug's archive as Heroku's clients pack it, with one more file.
fn slug_archive(path: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [("./app/server.js", "// serves\n"), (path, text)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn put(server: &mut Server, slug: &Value, archive: &[u8]) -> u16 {
    let path = slug["blob"]["url"].as_str().unwrap().strip_prefix(HOST).unwrap();
    let response = server.send_tcp(Server::request("PUT", path).body(Full::from(archive.to_vec())).unwrap()).await;
    let status = response.status().as_u16();
    let said = response.into_body().collect().await.unwrap().to_bytes();
    server.note(format_args!("put: {status} {}", String::from_utf8_lossy(&said)));
    status
}

async fn get(server: &Server, path: &str) -> Response<Incoming> {
    server.send_tcp(Server::request("GET", path).body(Full::<Bytes>::default()).unwrap()).await
}

/// Reads a build's output until it compiles, which it then does until it is killed.
async fn compiling(server: &Server, build: &Value) -> Response<Incoming> {
    let stream = build["output_stream_url"].as_str().unwrap().strip_prefix(HOST).unwrap();
    let (mut output, mut text) = (get(server, stream).await, String::new());
    while !text.contains("compiling\n") {
        let frame = output.body_mut().frame().await.unwrap_or_else(|| panic!("{text}")).unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    output
}

async fn build(server: &Server) -> Value {
    let url = uploaded(server).await;
    server.quietly("POST", "/apps/shop/builds", &json!({ "source_blob": { "url": url } }).to_string()).await
}

#[tokio::test]
async fn a_source_is_uploaded_and_built() {
    let mut server = Server::with_app().await;
    server.ask("POST", "/sources", "").await;
    let url = uploaded(&server).await;
    let checksum = format!("SHA256:{}", hex::encode(Sha256::digest(archive())));
    let blob = json!({ "url": url, "version": "1a2b3c4d", "checksum": checksum });
    let body = json!({ "source_blob": blob, "buildpacks": [{ "url": "https://example.com/pack" }] }).to_string();
    let build = server.ask("POST", "/apps/shop/builds", &body).await;
    let path = format!("/apps/shop/builds/{}", build["id"].as_str().unwrap());
    let output = compiling(&server, &build).await;
    server.ask("GET", &path, "").await;
    server.ask("DELETE", &path, "").await;
    let rest = output.into_body().collect().await.unwrap().to_bytes();
    server.note(format_args!("the rest of the output: {}", String::from_utf8_lossy(&rest).trim()));
    until(async || server.quietly("GET", &path, "").await["status"] == "failed").await;
    server.ask("GET", "/apps/shop/builds", "").await;
    server.ask("DELETE", &path, "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_can_not_be_built_is_refused() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/builds";
    let good = uploaded(&server).await;
    let empty = format!("{HOST}{}", place(&server).await);
    let unknown = format!("{HOST}/sources/{}", "0".repeat(32));
    let zeros = "0".repeat(64);
    for blob in [
        json!({ "url": "https://github.com/x/y/archive/main.tar.gz" }),
        json!({ "url": "http://169.254.169.254/latest/meta-data" }),
        json!({ "url": format!("{HOST}/apps/shop") }),
        json!({ "url": format!("{HOST}/sources/../key") }),
        json!({ "url": "file:///etc/shadow" }),
        json!({ "url": "" }),
        json!({ "url": unknown }),
        json!({ "url": empty }),
        json!({ "url": good, "checksum": "MD5:1" }),
        json!({ "url": good, "checksum": format!("SHA256:{zeros}") }),
        json!({}),
    ] {
        server.ask("POST", path, &json!({ "source_blob": blob }).to_string()).await;
    }
    for buildpacks in [
        json!([{ "url": "-x" }]),
        json!([{}]),
        json!([{ "url": "heroku/python" }, { "url": "heroku/python" }]),
        json!("a"),
    ] {
        server
            .ask("POST", path, &json!({ "source_blob": { "url": good }, "buildpacks": buildpacks }).to_string())
            .await;
    }
    server.ask("POST", "/apps/shop/builds/actions/rebuild", "").await;
    server.ask("GET", "/apps/shop/builds/x", "").await;
    server.ask("DELETE", "/apps/shop/builds/x", "").await;
    assert_eq!(server.quietly("GET", path, "").await, json!([]));
    server.note("after all that the source is still there:");
    let built = server.quietly("POST", path, &json!({ "source_blob": { "url": good } }).to_string()).await;
    server.note(built["status"].as_str().unwrap());
    server.note("but only once:");
    server.ask("POST", path, &json!({ "source_blob": { "url": good } }).to_string()).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn uploads_are_bounded_whole_and_once() {
    let mut server = Server::with_app().await;
    let path = place(&server).await;
    server.ask("PUT", &path, &"x".repeat(100_001)).await;
    server.ask("PUT", &path, "").await;

    // Chunked, too long: there is no length that could have told.
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n{}\r\n0\r\n\r\n", 150_000, "x".repeat(150_000)).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // Broken off in the middle: nothing is kept, and the place waits on.
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream
        .write_all(format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").as_bytes())
        .await
        .unwrap();
    let uploads = || std::fs::read_dir(server.root().join("sources")).unwrap().count();
    until(async || uploads() == 1).await;
    drop(stream);
    until(async || uploads() == 0).await;

    server.ask("PUT", &path, "whole").await;
    server.ask("PUT", &path, "again").await;
    server.ask("PUT", "/sources/00000000000000000000000000000000", "x").await;
    server.ask("PUT", "/sources/..%2fkey", "x").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_build_ends_with_the_reader_of_its_output_only_if_it_is_attached() {
    let server = Server::with_app().await;
    for attached in [true, false] {
        let url = uploaded(&server).await;
        let body = json!({ "source_blob": { "url": url } }).to_string();
        let request =
            Server::request("POST", "/apps/shop/builds").header("x-hokku-attached", if attached { "1" } else { "0" });
        let response = server.send(request.body(Full::from(body)).unwrap()).await;
        let build: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let output = compiling(&server, &build).await;
        let path = format!("/apps/shop/builds/{}", build["id"].as_str().unwrap());
        // Somebody else looks at it for a moment.
        let seen = server.quietly("GET", &path, "").await;
        assert_eq!(seen["output_stream_url"] == build["output_stream_url"], !attached);
        drop(compiling(&server, &seen).await);
        assert_eq!(server.quietly("GET", &path, "").await["status"], "pending");
        drop(output);
        if attached {
            until(async || server.quietly("GET", &path, "").await["status"] == "failed").await;
        } else {
            // Cancelling still has something to cancel.
            server.quietly("DELETE", &path, "").await;
        }
    }
}

#[tokio::test]
async fn output_needs_its_secret_and_ends_with_a_word_when_the_server_goes() {
    let server = Server::with_app().await;
    let build = build(&server).await;
    let output = compiling(&server, &build).await;
    let stream = build["output_stream_url"].as_str().unwrap().strip_prefix(HOST).unwrap();
    assert_eq!(get(&server, &altered(stream)).await.status(), 404);
    assert_eq!(get(&server, "/streams/x/y").await.status(), 404);
    server.control.closing.cancel();
    let rest = output.into_body().collect().await.unwrap().to_bytes();
    insta::assert_snapshot!(String::from_utf8_lossy(&rest).trim(), @"!     The server is going down; the output can be read on when it is back.");
}

#[tokio::test]
async fn the_cache_is_purged() {
    let server = Server::with_app().await;
    let cache = server.root().join(format!("cache/{}", server.app().await));
    std::fs::create_dir_all(cache.join("node_modules")).unwrap();
    server.quietly("DELETE", "/apps/shop/build-cache", "").await;
    assert!(!cache.exists());
    server.quietly("DELETE", "/apps/shop/build-cache", "").await;
}

#[tokio::test]
async fn buildpacks_are_listed_and_replaced() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/buildpack-installations";
    server.ask("GET", path, "").await;
    let updates = r#"{"updates":[{"buildpack":"https://example.com/pack.git#v1"},{"buildpack":"heroku/python"}]}"#;
    server.ask_with("PUT", path, updates, &[("range", "")]).await;
    for body in
        [r#"{"updates":[{"buildpack":""}]}"#, r#"{"updates":[{"buildpack":"a b"}]}"#, r#"{"updates":[{}]}"#, "{}"]
    {
        server.ask("PUT", path, body).await;
    }
    server.ask("GET", path, "").await;
    server.ask("PUT", path, r#"{"updates":[]}"#).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_slug_is_brought_and_released() {
    let mut server = Server::with_app().await;
    let archive = slug_archive("./app/lib/x", "x");
    let checksum = format!("SHA256:{}", hex::encode(Sha256::digest(&archive)));
    let types = json!({ "web": "node server.js", "worker": " node work.js " });
    let body = json!({
        "process_types": types, "commit": "60883d9e", "commit_description": "mended", "checksum": checksum,
        "buildpack_provided_description": "Node.js", "stack": "host",
    });
    let slug = server.ask("POST", "/apps/shop/slugs", &body.to_string()).await;
    let path = format!("/apps/shop/slugs/{}", slug["id"].as_str().unwrap());
    server.ask("GET", &path, "").await;
    let release = json!({ "slug": slug["id"], "description": "brought" }).to_string();
    server.ask("POST", "/apps/shop/releases", &release).await;
    assert_eq!(put(&mut server, &slug, &archive).await, 200);
    assert_eq!(put(&mut server, &slug, &archive).await, 404, "once");
    let kept = server.ask("GET", &path, "").await;
    assert_eq!(kept["checksum"], checksum);
    server.ask("POST", "/apps/shop/releases", &release).await;
    server.quiet().await;
    server.ask("GET", "/apps/shop/formation/web", "").await;
    // What dynos are started from.
    let digests = std::fs::read_dir(server.root().join("slugs")).unwrap().map(|entry| entry.unwrap().file_name());
    let digests: Vec<_> = digests.collect();
    let [only] = &digests[..] else { panic!("{digests:?}") };
    let digest = only.to_str().unwrap().strip_suffix(".tar.zst").unwrap().parse().unwrap();
    let tree = server.control.slugs.tree(&digest).unwrap();
    assert_eq!(std::fs::read_to_string(tree.join("app/lib/x")).unwrap(), "x");
    assert_eq!(std::fs::read_dir(server.root().join("sources")).unwrap().count(), 0);
    // Of another app it is nothing.
    server.quietly("POST", "/apps", r#"{"name":"other"}"#).await;
    server.ask("POST", "/apps/other/releases", &release).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_slug_that_is_none_leaves_nothing() {
    let mut server = Server::with_app().await;
    let path = "/apps/shop/slugs";
    for body in [
        json!({}),
        json!({ "process_types": { "a b": "x" } }),
        json!({ "process_types": { "web": "" } }),
        json!({ "process_types": { "web": "a\nb" } }),
        json!({ "process_types": { "web": "a\u{0}" } }),
        json!({ "process_types": { "web": "x".repeat(300_000) } }),
        json!({ "process_types": {}, "checksum": "MD5:1" }),
        json!({ "process_types": {}, "stack": "cedar" }),
        json!({ "process_types": {}, "stack": "debian-13" }),
        json!({ "process_types": { "web": 1 } }),
    ] {
        server.ask("POST", path, &body.to_string()).await;
    }
    let types = json!({ "web": "x" });
    let wrong = json!({ "process_types": types, "checksum": format!("SHA256:{}", "0".repeat(64)) });
    let slug = server.quietly("POST", path, &wrong.to_string()).await;
    put(&mut server, &slug, &slug_archive("./app/x", "x")).await;
    let bomb = {
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(300 << 20);
        header.set_mode(0o644);
        tar.append_data(&mut header, "app/zeros", std::io::Read::take(std::io::repeat(0), 300 << 20)).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    };
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "app/up", "../../../etc/shadow").unwrap();
    let body = json!({ "process_types": types }).to_string();
    for archive in [b"no archive".to_vec(), Vec::new(), bomb, link.into_inner().unwrap(), vec![0; 100_001]] {
        let slug = server.quietly("POST", path, &body).await;
        assert_ne!(put(&mut server, &slug, &archive).await, 200);
    }
    // The app goes while its slug is on its way.
    let slug = server.quietly("POST", path, &body).await;
    server.quietly("DELETE", "/apps/shop", "").await;
    put(&mut server, &slug, &slug_archive("./app/x", "x")).await;
    for folder in ["slugs", "trees", "sources"] {
        assert_eq!(std::fs::read_dir(server.root().join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert_said!(server.transcript());
}

#[tokio::test]
async fn of_slugs_that_are_only_asked_for_the_oldest_is_given_up() {
    let mut server = Server::with_app().await;
    let ask = json!({ "process_types": { "web": "x" } }).to_string();
    let first = server.quietly("POST", "/apps/shop/slugs", &ask).await;
    let second = server.quietly("POST", "/apps/shop/slugs", &ask).await;
    for _ in 0..9 {
        server.quietly("POST", "/apps/shop/slugs", &ask).await;
    }
    let archive = slug_archive("./app/x", "x");
    assert_eq!(put(&mut server, &first, &archive).await, 404);
    assert_eq!(put(&mut server, &second, &archive).await, 200);
}

#[tokio::test]
async fn the_registry_of_buildpacks_has_those_that_are_part_of_hokku() {
    let mut server = Server::start().await;
    let named = async |query: &str| -> Vec<String> {
        let rows = server.quietly("GET", &format!("/buildpacks{query}"), "").await;
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named("?in[name][]=ruby&in[name][]=go").await, ["ruby", "go"]);
    assert_eq!(named("?like[description]=node.JS").await, ["nodejs"]);
    assert_eq!(named("?in[namespace][]=others").await, Vec::<String>::new());
    assert_eq!(named("").await.len(), 10);
    for rest in ["", "/revisions", "/readme"] {
        server.ask("GET", &format!("/buildpacks/heroku%2Fruby{rest}"), "").await;
        server.ask("GET", &format!("/buildpacks/others%2Fcobol{rest}"), "").await;
    }
    assert_said!(server.transcript());
}
