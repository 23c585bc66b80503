//! The formation and its dynos.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, wait_for};

/// The ids of the app's dynos by their names.
fn ids(hokku: &Hokku, name: &str) -> Vec<String> {
    let dynos = hokku.dynos("shop");
    dynos.iter().filter(|dyno| dyno["name"] == name).map(|dyno| dyno["id"].to_string()).collect()
}

/// Waits until `name` is another dyno than `before`, and up.
fn replaced(hokku: &Hokku, name: &str, before: &[String]) {
    wait_for(&format!("another {name}"), || {
        let dynos = hokku.dynos("shop");
        let mut named = dynos.iter().filter(|dyno| dyno["name"] == name);
        let (only, more) = (named.next()?, named.next());
        (more.is_none() && only["state"] == "up" && !before.contains(&only["id"].to_string())).then_some(())
    });
}

#[test]
fn dynos_are_scaled_sized_restarted_and_stopped() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    let ps = heroku.ok(&["ps", "-a", "shop"]);
    assert!(ps.contains("=== web (Basic): node server.js (1)") && ps.contains("web.1: up "), "{ps}");
    assert_eq!(heroku.ok(&["ps:scale", "-a", "shop"]), "clock=0:Basic web=1:Basic worker=0:Basic\n");
    heroku.done(&["ps:scale", "worker=2:standard-2x", "-a", "shop"]).with("now running worker at 2:Standard-2X");
    hokku.wait_until_up("shop", 3);
    let memory = hokku.dynos("shop").iter().find(|dyno| dyno["name"] == "worker.1").unwrap()["size"].clone();
    assert_eq!(memory, "Standard-2X");
    heroku.done(&["scale", "worker-1", "-a", "shop"]).with("now running worker at 1:Standard-2X");
    hokku.wait_until_up("shop", 2);
    let before = ids(&hokku, "worker.1");
    let types = heroku.done(&["ps:type", "worker=basic", "-a", "shop"]);
    assert!(types.out.contains("worker"), "{types:?}");
    replaced(&hokku, "worker.1", &before);
    assert!(heroku.fails(&["ps:scale", "nothing=1", "-a", "shop"]).contains("Couldn't find that process type."));
    assert!(heroku.fails(&["ps:scale", "web=1000000", "-a", "shop"]).contains("invalid_params"));

    let (web, worker) = (ids(&hokku, "web.1"), ids(&hokku, "worker.1"));
    heroku.done(&["ps:restart", "-a", "shop"]).with("Restarting all dynos on shop... done");
    replaced(&hokku, "web.1", &web);
    replaced(&hokku, "worker.1", &worker);
    let (web, worker) = (ids(&hokku, "web.1"), ids(&hokku, "worker.1"));
    heroku.done(&["ps:restart", "-d", "web.1", "-a", "shop"]);
    replaced(&hokku, "web.1", &web);
    assert_eq!(ids(&hokku, "worker.1"), worker, "only web.1 was meant");
    heroku.done(&["ps:restart", "-p", "worker", "-a", "shop"]);
    replaced(&hokku, "worker.1", &worker);
    let worker = ids(&hokku, "worker.1");
    heroku.done(&["ps:stop", "-d", "worker.1", "-a", "shop"]).with("Stopping dyno worker.1 on shop... done");
    replaced(&hokku, "worker.1", &worker);
    let worker = ids(&hokku, "worker.1");
    heroku.done(&["ps:stop", "-p", "worker", "-a", "shop"]);
    replaced(&hokku, "worker.1", &worker);
    heroku.done(&["ps:wait", "-a", "shop"]);
    heroku.done(&["ps:scale", "web=0", "-a", "shop"]);
    wait_for("no web dyno", || (hokku.get("shop", "/").status == 503).then_some(()));
}
