//! Certificates: brought with the CLI, and seen by clients that trust nothing else.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, text, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A self-signed certificate as people make them; its file and its key's.
fn certificate(dir: &Path, file: &str, name: &str) -> (PathBuf, PathBuf) {
    let (chain, key) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/O=Example/CN=shop"])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-out"])
        .arg(&chain)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (chain, key)
}

/// What curl gets from `https://host/` at the router when it trusts that file's certificates only.
fn curl(hokku: &Hokku, host: &str, trusted: &Path) -> Result<String, String> {
    let instance = std::fs::read_to_string(hokku.root().join("instance.json")).unwrap();
    let instance: serde_json::Value = serde_json::from_str(&instance).unwrap();
    let port = instance["router_tls"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .arg("--cacert")
        .arg(trusted)
        .args(["--write-out", "\n%{http_code}", &format!("https://{host}:{port}/headers")])
        .output()
        .unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn a_certificate_is_served_by_name_renewed_and_removed() {
    let mut hokku = Hokku::with("", &[("HOKKU_ROUTER_TLS", "127.0.0.1:0")]);
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let dir = tempfile::tempdir().unwrap();
    let authority = hokku.root().join("ca.pem");
    let own = wait_for("the instance's own certificate", || curl(&hokku, "shop.localhost", &authority).ok());
    assert!(own.ends_with("200"), "{own}");

    assert!(heroku.ok(&["certs", "-a", "shop"]).contains("has no SSL certificates"));
    let (old, old_key) = certificate(dir.path(), "old", "www.example.com");
    let (new, new_key) = certificate(dir.path(), "new", "www.example.com");
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let said = heroku.done(&["certs:add", &file(&old), &file(&old_key), "-a", "shop"]);
    assert!(said.out.contains("www.example.com") && said.out.contains("self signed"), "{}", said.out);
    heroku.done(&["domains:add", "www.example.com", "-a", "shop"]);
    let body = wait_for("the certificate", || curl(&hokku, "www.example.com", &old).ok());
    assert!(body.ends_with("200"), "{body}");
    assert!(curl(&hokku, "www.example.com", &new).is_err() && curl(&hokku, "www.example.com", &authority).is_err());
    let listed = heroku.ok(&["certs", "-a", "shop"]);
    assert!(listed.contains("www.example.com") && listed.contains("SNI"), "{listed}");
    let name = hokku.json(&["certs", "--json", "-a", "shop"])[0]["name"].as_str().unwrap().to_owned();
    let info = heroku.done(&["certs:info", "--name", &name, "--show-domains", "-a", "shop"]).out;
    assert!(info.contains("/O=Example/CN=shop") && info.contains("www.example.com"), "{info}");
    assert!(heroku.ok(&["domains:info", "www.example.com", "-a", "shop"]).contains(&name));

    heroku.done(&["certs:update", &file(&new), &file(&new_key), "--confirm", "shop", "-a", "shop"]);
    wait_for("the new certificate", || curl(&hokku, "www.example.com", &new).ok());
    assert!(curl(&hokku, "www.example.com", &old).is_err());
    let refused = heroku.fails(&["certs:update", &file(&new), &file(&old_key), "--confirm", "shop", "-a", "shop"]);
    assert!(refused.contains("does not belong"), "{refused}");

    // Our own CLI, over the API's TLS.
    let api = format!("https://{}", hokku.api);
    let over_tls = |authority: Option<&Path>| {
        let mut command = hokku.command(&["apps:info", "-s", "-a", "shop"]);
        command
            .env_remove("HOKKU_ROOT")
            .env("HOKKU_HOST", &api)
            .env("HOKKU_API_KEY", heroku.variable("HEROKU_API_KEY"));
        let output = command.envs(authority.map(|file| ("HOKKU_CA", file))).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (done, said) = over_tls(Some(&authority));
    assert!(done && said.contains("shop"), "{said}");
    let (done, said) = over_tls(None);
    assert!(!done && said.contains("HOKKU_CA"), "{said}");

    // Neither side needs the other, and a new server shows the same.
    hokku.kill_server();
    assert!(curl(&hokku, "www.example.com", &new).is_ok());
    hokku.start_server();
    assert!(curl(&hokku, "www.example.com", &new).is_ok());

    assert!(heroku.ok(&["certs:auto", "-a", "shop"]).contains("disabled"));
    assert!(heroku.fails(&["certs:auto:enable", "-a", "shop"]).contains("does not issue certificates"));
    heroku.done(&["certs:generate", "b.example.com", "--selfsigned", "--now", "-a", "shop"]).with("certs:add");
    let made = heroku.home().join("b.example.com");
    let (chain, key) = (made.with_extension("com.crt"), made.with_extension("com.key"));
    heroku.done(&["certs:add", &file(&chain), &file(&key), "-a", "shop"]).with("b.example.com");
    assert!(hokku.fails(&["certs:info", "-a", "shop"]).contains("--name"));
    heroku.done(&["certs:remove", "--name", &name, "--confirm", "shop", "-a", "shop"]);
    wait_for("the certificate to be gone", || curl(&hokku, "www.example.com", &new).is_err().then_some(()));
    assert!(curl(&hokku, "shop.localhost", &authority).is_ok());
}
