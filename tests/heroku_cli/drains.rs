//! Drains.

use crate::heroku::Heroku;
use crate::hokku::Hokku;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

#[test]
fn a_drain_gets_the_log_until_it_is_removed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hokku = Hokku::with_config(&format!("[network]\nallow_host = [\"tcp/{port}\"]\n"));
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let url = format!("syslog://127.0.0.1:{port}");
    heroku.done(&["drains:add", &url, "-a", "shop"]).with("Successfully added drain");
    let listed = heroku.ok(&["drains", "-a", "shop"]);
    let token = listed.split(['(', ')']).nth(1).unwrap().to_owned();
    assert!(listed.contains(&url) && token.starts_with("d."), "{listed}");

    hokku.get("shop", "/say/spoken");
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let line = lines.find(|line| line.ends_with(" - spoken")).unwrap();
    assert!(line.contains(&format!(" {token} app web.1 - ")) && line.contains(" <190>1 "), "{line}");
    let line = lines.find(|line| line.contains("path=\"/say/spoken\"")).unwrap();
    assert!(line.contains(&format!(" {token} heroku router - at=info ")), "{line}");

    heroku.done(&["drains:remove", &token, "-a", "shop"]).with("Successfully removed drain");
    assert_eq!(heroku.json(&["drains", "--json", "-a", "shop"]), serde_json::json!([]));
    hokku.get("shop", "/say/unheard");
    hokku.wait_for_log("shop", "unheard");
    assert!(!lines.any(|line| line.contains("unheard")), "the connection ends with the drain");

    // What only this machine reaches stays closed to others' drains, and the log says so.
    heroku.done(&["drains:add", &format!("http://{}/", hokku.api), "-a", "shop"]);
    hokku.get("shop", "/");
    hokku.wait_for_log("shop", "it leads to this machine");
    assert!(heroku.fails(&["drains:add", "ftp://x", "-a", "shop"]).contains("a drain is syslog://HOST:PORT"));
    for number in 1..=4 {
        hokku.ok(&["drains:add", &format!("syslog://a.invalid:{number}"), "-a", "shop"]);
    }
    assert!(heroku.fails(&["drains:add", "syslog://a.invalid:5", "-a", "shop"]).contains("at most 5 log drains"));
}

/// An authority: what it signs with, and its certificate as PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A receiver that shows itself as `name`, which that authority vouches for.
struct Receiver {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Receiver {
    fn new(authority: &Issuer<'static, KeyPair>, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), config: Arc::new(config) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn accept(&self) -> BufReader<StreamOwned<ServerConnection, TcpStream>> {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        BufReader::new(StreamOwned::new(ServerConnection::new(Arc::clone(&self.config)).unwrap(), stream))
    }

    /// What a client does that does not trust it: it ends the handshake.
    fn is_refused(&self) -> bool {
        self.accept().read_line(&mut String::new()).is_err()
    }
}

#[test]
fn drains_over_tls_go_to_those_whom_the_machine_trusts_and_to_nobody_else() {
    let (trusted, bundle) = authority();
    let (stranger, _) = authority();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trusted.pem");
    std::fs::write(&file, bundle).unwrap();
    let (syslog, https) = (Receiver::new(&trusted, "127.0.0.1"), Receiver::new(&trusted, "localhost"));
    let (unknown, misnamed) = (Receiver::new(&stranger, "127.0.0.1"), Receiver::new(&trusted, "other.example.com"));
    let ports: Vec<_> =
        [&syslog, &https, &unknown, &misnamed].iter().map(|of| format!("\"tcp/{}\"", of.port())).collect();
    let config = format!("[network]\nallow_host = [{}]\n", ports.join(", "));
    let hokku = Hokku::with(&config, &[("SSL_CERT_FILE", file.to_str().unwrap())]);
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");

    heroku.done(&["drains:add", &format!("syslog+tls://127.0.0.1:{}", syslog.port()), "-a", "shop"]);
    hokku.get("shop", "/say/over-syslog");
    let mut lines = syslog.accept().lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(" app web.1 - over-syslog") || line.ends_with(" - over-syslog")));

    heroku.done(&["drains:add", &format!("https://user:word@localhost:{}/in", https.port()), "-a", "shop"]);
    hokku.get("shop", "/say/over-https");
    let mut stream = https.accept();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /in http/1.1") && head.contains("authorization: basic dxnlcjp3b3jk"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut stream, &mut body).unwrap();
    assert!(String::from_utf8(body).unwrap().contains("over-https"));
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();

    for (receiver, url) in [(&unknown, "syslog+tls://127.0.0.1"), (&misnamed, "https://localhost")] {
        let url = format!("{url}:{}", receiver.port());
        heroku.done(&["drains:add", &url, "-a", "shop"]);
        hokku.get("shop", "/say/secret");
        assert!(receiver.is_refused(), "{url}");
        hokku.wait_for_log("shop", "L14 (Certificate validation error)");
        let drains = hokku.json(&["drains", "--json", "-a", "shop"]);
        let last = drains.as_array().unwrap().iter().find(|row| row["url"].as_str().unwrap().contains(&url)).unwrap();
        let token = last["token"].as_str().unwrap();
        assert!(hokku.log("shop").contains(&format!("L14 (Certificate validation error) -> drain {token}")));
        heroku.done(&["drains:remove", token, "-a", "shop"]);
    }
}
