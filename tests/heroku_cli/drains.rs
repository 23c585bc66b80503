//! Drains.

use crate::heroku::Heroku;
use crate::hokku::Hokku;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::Duration;

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
