//! Host names of an app's own.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, request, wait_for};

#[test]
fn domains_lead_to_the_app_until_they_are_removed() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let answers = |host: &str| {
        request(hokku.router, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap().status
    };
    assert_eq!(answers("www.example.com"), 404);
    heroku.done(&["domains:add", "www.example.com", "-a", "shop"]).with("DNS Target shop.localhost");
    wait_for("the domain", || (answers("www.example.com") == 200).then_some(()));
    heroku.done(&["domains:add", "*.example.org", "-a", "shop"]);
    wait_for("the wildcard", || (answers("any.example.org") == 200).then_some(()));
    heroku.done(&["domains:wait", "-a", "shop"]);
    let list = heroku.ok(&["domains", "-a", "shop"]);
    for name in ["shop.localhost", "www.example.com", "*.example.org"] {
        assert!(list.contains(name), "{list}");
    }
    assert!(heroku.ok(&["domains:info", "www.example.com", "-a", "shop"]).contains("shop.localhost"));
    assert!(heroku.fails(&["domains:add", "www.example.com", "-a", "shop"]).contains("already"));
    heroku.done(&["domains:remove", "www.example.com", "-a", "shop"]);
    wait_for("the domain to be gone", || (answers("www.example.com") == 404).then_some(()));
    assert!(heroku.fails(&["domains:remove", "www.example.com", "-a", "shop"]).contains("Couldn't find that domain."));
    heroku.done(&["domains:clear", "-a", "shop"]);
    wait_for("the wildcard to be gone", || (answers("any.example.org") == 404).then_some(()));
    assert_eq!(answers("shop.localhost"), 200);
}
